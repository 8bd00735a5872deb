"""Going over a log again and again: it is read and encoded once, and then kept, in memory or in a temporary file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Examples
from banditmesh.bandits.hashing import mix64
from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.view import View
from banditmesh.fit.spill import Block, Spill, joined
from banditmesh.runtime.errors import InvalidArgument

MEMORY_BYTES = 256 << 20
WINDOW_BYTES = 128 << 20
_AT_ONCE = 4096
_HELD_OUT = 10


class Part(Enum):
    """Which rows of a log: all, or one in ten, drawn by the hash of its number, or the other nine."""

    ALL = "all"
    HELD_OUT = "held out"
    REST = "rest"

    def has(self, line: int) -> bool:
        """Whether the row of this number belongs to the part."""
        return self is Part.ALL or bool(_held_out(np.array([line]))[0]) == (self is Part.HELD_OUT)


class Passes:
    """The examples of a log, or of a part of it, as often as wanted.

    Memory: at most `memory_bytes` while they fit there, else nothing; and for a pass in random order twice
    `window_bytes`, or once over examples that are in memory. By default that is 384 MiB, whatever the log's size.

    What comes out is the same whether it comes from memory or from the file.

    Args:
        log: the file.
        view: what the policy sees.
        part: which of its rows.
        memory_bytes: up to this size, the encoded examples stay in memory after the first pass.
        window_bytes: up to this size, examples are shuffled with one another.
    """

    def __init__(
        self,
        log: Path,
        view: View,
        part: Part = Part.ALL,
        *,
        memory_bytes: int = MEMORY_BYTES,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._encoded = _Encoded(log, view, memory_bytes)
        self._part = part
        self._window_bytes = window_bytes

    def only(self, part: Part) -> Passes:
        """A part of the same log, which is read once for all its parts."""
        other = Passes.__new__(Passes)
        other._encoded, other._part, other._window_bytes = self._encoded, part, self._window_bytes
        return other

    def examples(self, done: int) -> int | None:
        """How many examples a pass goes over; in the first one an estimate, from the share of the file that the `done`
        ones came from; None where that is unknown.
        """
        return self._encoded.examples(self._part, done)

    def in_order(self, *, keep: bool = True) -> Iterator[Examples]:
        """One pass in the log's order.

        Args:
            keep: whether there will be further passes.

        Raises:
            InvalidArgument: there are no rows; else as `decisions.reader.batches` does.
            ResourceExhausted: the temporary folder is full.
        """
        some = False
        for block in _groups(self._encoded.blocks(keep=keep)):
            rows = self._rows(block)
            if len(rows):
                some = True
                yield block.examples if self._part is Part.ALL else block.examples.take(rows)
        if not some:
            raise InvalidArgument(f"{self._encoded.log} has no rows", field="log", value=str(self._encoded.log))

    def shuffled(self, rng: np.random.Generator) -> Iterator[Examples]:
        """One pass in random order. Raises as `in_order` does.

        What fits in one window is one permutation. Else windows are filled with blocks (a few hundred rows that stand
        together) from all over the log, drawn at random, and each window is one permutation: so a log that is sorted,
        by reward or by user, is not learned in that order.
        """
        spill = self._encoded.spill()
        order = np.arange(len(spill)) if spill.nbytes <= self._window_bytes else rng.permutation(len(spill))
        for window in _windows(order.tolist(), spill, self._window_bytes):
            block = joined([spill.read(at) for at in window])
            rows = self._rows(block)
            rows = rows[rng.permutation(len(rows))]
            for start, stop in pairwise([*range(0, len(rows), _AT_ONCE), len(rows)]):
                yield block.examples.take(rows[start:stop])
            del block  # before the next window is there

    def _rows(self, block: Block) -> NDArray[np.int64]:
        if self._part is Part.ALL:
            return np.arange(len(block.examples))
        return np.flatnonzero(block.held_out == (self._part is Part.HELD_OUT))


class _Encoded:
    """All examples of a log: from the file the first time, later from where they are kept."""

    def __init__(self, log: Path, view: View, memory_bytes: int) -> None:
        self.log = log
        self._view = view
        self._memory_bytes = memory_bytes
        self._whole: Spill | None = None
        self._share = 0.0

    def blocks(self, *, keep: bool) -> Iterator[Block]:
        if self._whole is not None:
            yield from (self._whole.read(at) for at in range(len(self._whole)))
            return
        spill = Spill(self._memory_bytes)
        for decisions in batches(self.log, self._tell):
            block = _block(encode(decisions, self._view))
            if keep:
                spill.append(block)
            yield block
        self._whole = spill if keep else None

    def spill(self) -> Spill:
        if self._whole is None:
            for _ in self.blocks(keep=True):
                pass
            assert self._whole is not None
        return self._whole

    def examples(self, part: Part, done: int) -> int | None:
        if self._whole is None:
            return round(done / self._share) if self._share else None
        held_out = self._whole.held_out
        return {
            Part.ALL: self._whole.examples,
            Part.HELD_OUT: held_out,
            Part.REST: self._whole.examples - held_out,
        }[part]

    def _tell(self, share: float) -> None:
        self._share = share


def _block(batch: LoggedBatch) -> Block:
    rows, flat = batch.shown_rows()
    return Block(batch.examples_of(rows, flat), _held_out(batch.lines[rows]))


def _held_out(lines: NDArray[np.int64]) -> NDArray[np.bool_]:
    drawn: NDArray[np.bool_] = mix64(lines.astype(np.uint64)) % np.uint64(_HELD_OUT) == 0
    return drawn


def _groups(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks of at least `_AT_ONCE` examples: a policy has the same work with many as with few."""
    waiting: list[Block] = []
    n = 0
    for block in blocks:
        waiting.append(block)
        n += len(block.examples)
        if n >= _AT_ONCE:
            yield joined(waiting)
            waiting, n = [], 0
    if waiting:
        yield joined(waiting)


def _windows(order: list[int], spill: Spill, window_bytes: int) -> Iterator[list[int]]:
    window: list[int] = []
    size = 0
    for at in order:
        if window and size + spill.size(at) > window_bytes:
            yield window
            window, size = [], 0
        window.append(at)
        size += spill.size(at)
    if window:
        yield window
