"""A name that moves: what DNS does at a managed server's fail-over, without a DNS server."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

from banditmesh.local.tcp_proxy import TcpProxy


class MovingName(TcpProxy):
    """An address that leads new connections to ``target_port`` of 127.0.0.1; those that are open stay where they are.

    With ``tls`` it speaks TLS to the client and plainly to the server.
    """

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(target_port, tls=tls)
        self._deaf: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()

    @property
    def n_open(self) -> int:
        return len(self._connections)

    def go_silent(self) -> None:
        """What is open now never answers again, and is not closed either."""
        self._deaf |= self._clients

    async def _requests(
        self, client: asyncio.StreamReader, to_target: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        self._clients.add(to_client)
        await self._pass_on(client, to_target, to_client)

    async def _answers(
        self, target: asyncio.StreamReader, to_target: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        await self._pass_on(target, to_client, to_client)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                if connection not in self._deaf:
                    writer.write(chunk)
                    await writer.drain()
        if connection not in self._deaf:
            writer.close()
