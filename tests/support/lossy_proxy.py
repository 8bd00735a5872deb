"""A TCP proxy that loses what it is told to lose, for a client that must cope with it."""

from __future__ import annotations

import asyncio

from banditmesh.local.tcp_proxy import TcpProxy


class LossyProxy(TcpProxy):
    """Forwards connections to ``target_port`` of 127.0.0.1.

    ``lose_answers``: for that many connections, wait for the answer and then hang up instead of passing it on.
    ``request_bytes``: hang up on every connection after so many bytes of requests.
    """

    def __init__(self, target_port: int, *, lose_answers: int = 0, request_bytes: int | None = None) -> None:
        super().__init__(target_port)
        self._lose_answers = lose_answers
        self._request_bytes = request_bytes
        self.lost = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _requests(
        self, client: asyncio.StreamReader, to_target: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        left = self._request_bytes
        while chunk := await client.read(1 << 16):
            if left is not None and len(chunk) >= left:
                to_target.write(chunk[:left])
                await to_target.drain()
                self._hang_up(to_target, to_client)
                return
            left = left - len(chunk) if left is not None else None
            to_target.write(chunk)
            await to_target.drain()
        to_target.write_eof()

    async def _answers(
        self, target: asyncio.StreamReader, to_target: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        while chunk := await target.read(1 << 16):
            if chunk.startswith(b"HTTP/1.1 100"):
                to_client.write(chunk)
                continue
            if self._lose_answers:
                self._lose_answers -= 1
                self._hang_up(to_target, to_client)
                return
            to_client.write(chunk)
            await to_client.drain()

    def _hang_up(self, to_target: asyncio.StreamWriter, to_client: asyncio.StreamWriter) -> None:
        self.lost += 1
        to_client.close()
        to_target.close()
