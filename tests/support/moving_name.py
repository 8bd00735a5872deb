"""A name that moves: what DNS does at a managed server's fail-over, without a DNS server."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Self


class MovingName:
    """An address that leads new connections to ``target_port`` of 127.0.0.1; those that are open stay where they are.

    With ``tls`` it speaks TLS to the client and plainly to the server.
    """

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.target_port = target_port
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()
        self._deaf: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def n_open(self) -> int:
        return len(self._connections)

    def go_silent(self) -> None:
        """What is open now never answers again, and is not closed either."""
        self._deaf |= self._connections

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

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
                directions.create_task(self._pass_on(task, client, to_target))
                directions.create_task(self._pass_on(task, target, to_client))
        except asyncio.CancelledError:
            return  # asyncio.streams (3.11) would print a traceback for a cancelled connection
        finally:
            to_client.close()
            to_target.close()

    async def _pass_on(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                if task not in self._deaf:
                    writer.write(chunk)
                    await writer.drain()
        if task not in self._deaf:
            writer.close()
