"""Unary gRPC calls at a given rate, with so little work for each that the caller is not what is measured.

A client library takes as much of a core for a call as an engine does for an answer, so that beyond saturation it
measures itself. Here a call is two frames that were written in advance, and an answer is looked at only for its
`grpc-status` (RFC 9113; the server is told to use no table of headers, so that trailers are plain text).
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, cast

import grpc

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_CANCEL = 8
_WINDOW: Final = (1 << 31) - 1
_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_TICK_S = 0.002


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _header(name: str, value: str) -> bytes:
    """A literal that goes into no table."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


class _Connection(asyncio.Protocol):
    """One connection; every call has ended when `waiting` is empty."""

    def __init__(self, headers: bytes, deadline_s: float, outcomes: Counter[str]) -> None:
        self._headers = struct.pack(">I", len(headers))[1:] + bytes([_HEADERS, _END_HEADERS]), headers
        self._deadline_s = deadline_s
        self._outcomes = outcomes
        self._in = bytearray()
        self._stream = 1
        self.waiting: dict[int, float] = {}
        self._order: deque[int] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        settings = struct.pack(">HIHI", 1, 0, 4, _WINDOW)  # no table of headers; no window of a stream
        self._transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW - 65_535))
        )

    def call(self, messages: Sequence[bytes]) -> None:
        """Begin a call for each message."""
        now_s, (before, headers) = time.perf_counter(), self._headers
        out: list[bytes] = []
        for message in messages:
            stream = self._stream
            self._stream += 2
            self.waiting[stream] = now_s
            self._order.append(stream)
            number = struct.pack(">I", stream)
            out += (before, number, headers, message[:5], number, message[9:])
        self._transport.write(b"".join(out))

    def give_up(self) -> None:
        """Cancel what is past its deadline."""
        until_s, out = time.perf_counter() - self._deadline_s, []
        while self._order and self.waiting.get(self._order[0], 0.0) <= until_s:
            stream = self._order.popleft()
            if self.waiting.pop(stream, None) is not None:
                self._outcomes["DEADLINE_EXCEEDED"] += 1
                out.append(_frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL)))
        if out:
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        self._in += data
        at, given, now_s = 0, self._in, time.perf_counter()
        while len(given) >= at + 9:
            length = int.from_bytes(given[at : at + 3])
            if len(given) < at + 9 + length:
                break
            kind, flags = given[at + 3], given[at + 4]
            if kind in (_HEADERS, _RST_STREAM):
                stream = int.from_bytes(given[at + 5 : at + 9])
                if kind == _RST_STREAM:
                    self._ended(stream, "CANCELLED", now_s)
                elif flags & _END_STREAM:
                    found = given.find(b"grpc-status", at, at + 9 + length) + len(b"grpc-status")
                    status = bytes(given[found + 1 : found + 1 + given[found]])
                    self._ended(stream, _NAMES[int(status)], now_s)
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                body = bytes(given[at + 9 : at + 9 + length]) if kind == _PING else b""
                self._transport.write(_frame(kind, _ACK, 0, body))
            elif kind == _GOAWAY:
                self._outcomes["GOAWAY"] += 1
            at += 9 + length
        del self._in[:at]

    def _ended(self, stream: int, how: str, now_s: float) -> None:
        began_s = self.waiting.pop(stream, None)
        if began_s is not None:
            self._outcomes[how if now_s - began_s <= self._deadline_s else "DEADLINE_EXCEEDED"] += 1

    def close(self) -> None:
        """Close it."""
        self._transport.close()


async def calls_at_rate(
    port: int,
    method: str,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    deadline_s: float,
    connections: int = 20,
) -> Counter[str]:
    """Call a method so many times a second, whatever comes of it; how many calls had which outcome.

    Args:
        requests: Messages, serialised; taken in turn.
        rate: Calls a second.
        deadline_s: Of each call, told to the server; what is answered later counts as DEADLINE_EXCEEDED.
    """
    headers = b"".join(
        _header(name, value)
        for name, value in {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": f"127.0.0.1:{port}",
            "te": "trailers",
            "content-type": "application/grpc",
            "grpc-timeout": f"{round(deadline_s * 1000)}m",
        }.items()
    )
    messages = [_frame(_DATA, _END_STREAM, 0, b"\x00" + struct.pack(">I", len(each)) + each) for each in requests]
    outcomes: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: _Connection(headers, deadline_s, outcomes), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    began_s, sent, turn = time.perf_counter(), 0, 0
    while (elapsed_s := time.perf_counter() - began_s) < seconds:
        due = int(rate * elapsed_s) - sent
        share = -(-due // connections)
        while due > 0:
            n = min(due, share)
            opened[turn % connections].call([messages[(sent + each) % len(messages)] for each in range(n)])
            sent, due, turn = sent + n, due - n, turn + 1
        for each in opened:
            each.give_up()
        await asyncio.sleep(_TICK_S)
    while any(each.waiting for each in opened):
        for each in opened:
            each.give_up()
        await asyncio.sleep(_TICK_S)
    for each in opened:
        each.close()
    return outcomes
