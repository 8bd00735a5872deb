"""A TCP proxy on 127.0.0.1: a network between a client and a server that does more than pass on, or less."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from typing import Self


class TcpProxy(ABC):
    """Accepts connections and leads each to ``target_port``; what passes in each direction is the subclass's matter."""

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """``tls``: speak it to the client; the server is spoken to plainly."""
        self.target_port = target_port
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @abstractmethod
    async def _requests(
        self, client: asyncio.StreamReader, to_target: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        """Pass on what the client says."""

    @abstractmethod
    async def _answers(
        self, target: asyncio.StreamReader, to_target: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        """Pass on what the server says."""

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            target, to_target = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            to_client.close()
            return
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._requests(client, to_target, to_client))
                directions.create_task(self._answers(target, to_target, to_client))
        except asyncio.CancelledError:
            return  # only __aexit__ cancels; asyncio.streams (3.11) would print a traceback for a cancelled connection
        finally:
            to_client.close()
            to_target.close()
