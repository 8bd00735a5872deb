"""The HTTP endpoint for Prometheus: ``/metrics`` and ``/healthz``, nothing else, on the process's own event loop.

Small on purpose: at most :data:`MAX_CONNECTIONS` connections, :data:`REQUEST_S` to send a request, one request a
connection. Whoever opens connections and says nothing occupies a few kilobytes for a few seconds, and no thread; the
one that has been silent for longest makes room for a new one, so that a scrape always comes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.logging import get_logger

log = get_logger(__name__)

MAX_CONNECTIONS: Final = 64
MAX_HEAD_BYTES: Final = 8192
REQUEST_S: Final = 5.0
"""To send a request."""
RESPONSE_S: Final = 10.0
"""To take the answer in."""
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    allow: str = ""

    def head(self) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *([f"Allow: {self.allow}"] if self.allow else []),
            "Connection: close",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class MetricsServer:
    """Serves a registry. ``broken``: names of what keeps the service from being ready; none: it is."""

    def __init__(self, registry: CollectorRegistry, broken: Callable[[], Collection[str]] = tuple) -> None:
        self._registry = registry
        self._broken = broken
        self._connections: set[asyncio.Task[None]] = set()
        self._silent: dict[asyncio.Task[None], None] = {}
        """Those that have not sent their request yet, the oldest first."""
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The bound port; 0 before :meth:`start`."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server is not None else 0

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def start(self, address: HostPort) -> None:
        """Bind; port 0 takes a free one. Raises ConfigurationError when the port is taken."""
        try:
            self._server = await asyncio.start_server(self._accept, address.host, address.port, limit=MAX_HEAD_BYTES)
        except OSError as error:
            raise ConfigurationError(
                f"cannot serve metrics on {address}: {error.strerror or error}",
                hint="choose another BANDITMESH_METRICS_PORT (0 takes a free one)",
            ) from error

    async def stop(self) -> None:
        """Close the socket and end the connections."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._silent[task] = None
        if len(self._connections) > MAX_CONNECTIONS:
            next(iter(self._silent)).cancel()
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await self._request(reader)
            del self._silent[task]
            if request is not None:
                async with asyncio.timeout(RESPONSE_S):
                    await self._respond(writer, *request)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # who says nothing, or does not listen, is not answered
        finally:
            self._connections.discard(task)
            self._silent.pop(task, None)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            else:
                writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> tuple[_Answer | None, str, str, str] | None:
        """A refusal or None, the method, the path and the Accept header; None: the client has gone."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"the head is too large\n"), "GET", "", ""
        except asyncio.IncompleteReadError:
            return None
        first, *headers = head.decode("latin-1").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _Answer(HTTPStatus.BAD_REQUEST, b"not an HTTP/1 request\n"), "GET", "", ""
        accept = next((line[7:].strip() for line in headers if line.lower().startswith("accept:")), "")
        return None, parts[0], parts[1].partition("?")[0], accept

    async def _respond(
        self, writer: asyncio.StreamWriter, refusal: _Answer | None, method: str, path: str, accept: str
    ) -> None:
        answer = refusal if refusal is not None else await self._answer(method, path, accept)
        writer.write(answer.head() + (b"" if method == "HEAD" else answer.body))
        await writer.drain()
        writer.write_eof()

    async def _answer(self, method: str, path: str, accept: str) -> _Answer:
        if path not in ("/metrics", "/healthz"):
            return _Answer(HTTPStatus.NOT_FOUND, b"there are /metrics and /healthz\n")
        if method not in ("GET", "HEAD"):
            return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n", allow="GET, HEAD")
        if path == "/healthz":
            broken = sorted(self._broken())
            if broken:
                text = f"not ready: {', '.join(broken)}\n"
                return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, text.encode(errors="replace"))
            return _Answer(HTTPStatus.OK, b"ok\n")
        encode, content_type = choose_encoder(accept)
        # In a thread: some milliseconds for a large registry, which no call should wait for.
        return _Answer(HTTPStatus.OK, await asyncio.to_thread(encode, self._registry), content_type)
