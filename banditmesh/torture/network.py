"""A network that can hang, be slow, or answer in the server's place: a proxy before each server.

It runs in a thread with an event loop of its own, so that it hangs nobody but those whom it should.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final, Literal, Self

from banditmesh.local.running import Startable
from banditmesh.local.tcp_proxy import TcpProxy

Mode = Literal["pass", "hang", "hang requests", "hang answers", "refuse", "slow", "500", "503", "507"]
_LOOK_EVERY_S: Final = 0.05
_SLOW_S: Final = 0.3
_CHUNK: Final = 1 << 16
_ERRORS: Final = {
    "500": "500 Internal Server Error",
    "503": "503 Slow Down",
    "507": "507 Insufficient Storage",
}


class FaultyLink(TcpProxy):
    """Leads to ``target_port``. What it holds back while it hangs arrives when it does not any more, as on a real
    network."""

    mode: Mode = "pass"

    async def _requests(
        self, client: asyncio.StreamReader, to_target: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        await self._forward(client, to_target, to_client, hangs=("hang", "hang requests"))

    async def _answers(
        self, target: asyncio.StreamReader, to_target: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        await self._forward(target, to_client, to_target, hangs=("hang", "hang answers"))

    async def _forward(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        *,
        hangs: tuple[Mode, ...],
    ) -> None:
        try:
            while chunk := await source.read(_CHUNK):
                while self.mode in hangs:  # noqa: ASYNC110 # set by another thread
                    await asyncio.sleep(_LOOK_EVERY_S)
                if self.mode == "refuse":
                    return
                if self.mode in _ERRORS and "hang requests" in hangs:
                    back.write(_answer(self.mode))
                    await back.drain()
                    return
                if self.mode == "slow":
                    await asyncio.sleep(_SLOW_S)
                sink.write(chunk)
                await sink.drain()
        except OSError:
            pass  # one side hung up
        finally:
            for end in (sink, back):
                end.close()


def _answer(mode: str) -> bytes:
    """What an object store says in trouble."""
    body = f"<Error><Code>Trouble</Code><Message>{_ERRORS[mode]}</Message></Error>".encode()
    head = f"HTTP/1.1 {_ERRORS[mode]}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


class Network(Startable):
    """The links, in their thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._links: list[FaultyLink] = []

    def start(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def link(self, target_port: int) -> FaultyLink:
        """A new link to a port of this machine."""
        link = FaultyLink(target_port)
        asyncio.run_coroutine_threadsafe(link.__aenter__(), self._loop).result(10)
        self._links.append(link)
        return link

    def stop(self) -> None:
        """End all connections."""
        if not self._thread.is_alive():
            return
        for link in self._links:
            asyncio.run_coroutine_threadsafe(link.__aexit__(None, None, None), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
