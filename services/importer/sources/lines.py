"""Lines of a text file in bounded memory: a broken line must cost that line alone, so lines are cut before anything
parses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 20
"""A longer line is no row of ours, however it came about; it is skipped without being held in memory."""


class Readable(Protocol):
    """What is read from."""

    def read(self, nbytes: int) -> bytes:
        """Return at most so many bytes; none at the end."""
        ...


class Lines(NamedTuple):
    """Consecutive lines.

    Attributes:
        first: Number of the first one, from 1.
        lines: Without their line ends; None for one that was longer than :data:`MAX_LINE_BYTES`.
    """

    first: int
    lines: list[bytes | None]


def read_lines(stream: Readable, most: int) -> Iterator[Lines]:
    """Yield all lines, at most ``most`` at a time. Line ends are LF or CR LF; a byte order mark at the start is
    dropped.
    """
    number = 1
    for lines in _blocks(stream):
        if number == 1 and lines and lines[0]:
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        for start in range(0, len(lines), most):
            chunk = lines[start : start + most]
            yield Lines(number, chunk)
            number += len(chunk)


def _blocks(stream: Readable) -> Iterator[list[bytes | None]]:
    tail = b""
    too_long = False
    while block := stream.read(BLOCK_BYTES):
        head, newline, rest = block.partition(b"\n")
        if not newline:
            tail = b"" if too_long else tail + block
            too_long = too_long or len(tail) > MAX_LINE_BYTES
            continue
        first = tail + head
        lines: list[bytes | None] = [None if too_long or len(first) > MAX_LINE_BYTES else _without_cr(first)]
        whole, newline, tail = rest.rpartition(b"\n")
        if newline:
            lines += [line[:-1] if line[-1:] == b"\r" else line for line in whole.split(b"\n")]
        too_long = False
        yield lines
    if too_long:
        yield [None]
    elif tail:
        yield [_without_cr(tail)]


def _without_cr(line: bytes) -> bytes:
    return line.removesuffix(b"\r")
