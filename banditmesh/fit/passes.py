"""Going over a log again and again: from memory when it fits, else from the file each time."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path

import numpy as np

from banditmesh.bandits.batch import Examples, SparseRows
from banditmesh.bandits.hashing import mix64
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.view import View
from banditmesh.runtime.errors import InvalidArgument

MEMORY_BYTES = 512 << 20
_AT_ONCE = 4096
_HELD_OUT = 10


class Part(Enum):
    """Which rows of a log: all, or one in ten, drawn by the hash of its number, or the other nine."""

    ALL = "all"
    HELD_OUT = "held out"
    REST = "rest"

    def has(self, line: int) -> bool:
        """Whether the row of this number belongs to the part."""
        if self is Part.ALL:
            return True
        drawn = int(mix64(np.array([line], np.uint64))[0]) % _HELD_OUT == 0
        return drawn == (self is Part.HELD_OUT)


class Passes:
    """The examples of a log, or of a part of it, as often as wanted.

    Args:
        log: the file.
        view: what the policy sees.
        part: which of its rows.
        memory_bytes: up to this size, the encoded examples stay in memory after the first pass.
    """

    def __init__(self, log: Path, view: View, part: Part = Part.ALL, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._log = log
        self._view = view
        self._part = part
        self._memory_bytes = memory_bytes
        self._whole: Examples | None = None

    def in_order(self) -> Iterator[Examples]:
        """One pass in the log's order. Raises as `decisions.reader.batches` does, and InvalidArgument without rows."""
        if self._whole is not None:
            yield from _chunks(self._whole, np.arange(len(self._whole)))
            return
        kept: list[Examples] | None = []
        size = 0
        for examples in self._read():
            size += examples.features.ids.nbytes * 2 + 64 * len(examples)
            kept = [*kept, examples] if kept is not None and size <= self._memory_bytes else None
            yield examples
        if not size:
            raise InvalidArgument(f"{self._log} has no rows", field="log", value=str(self._log))
        if kept:
            self._whole = _joined(kept)

    def shuffled(self, rng: np.random.Generator) -> Iterator[Examples]:
        """One pass in random order: of all examples when they are in memory, else within each batch of the file."""
        if self._whole is not None:
            yield from _chunks(self._whole, rng.permutation(len(self._whole)))
        else:
            for examples in self._read():
                yield examples.take(rng.permutation(len(examples)))

    def _read(self) -> Iterator[Examples]:
        for decisions in batches(self._log):
            wanted = [decision for decision in decisions if self._part.has(decision.line)]
            if wanted:
                yield encode(wanted, self._view).shown_examples()


def _chunks(examples: Examples, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[Examples]:
    for start, stop in pairwise([*range(0, len(order), _AT_ONCE), len(order)]):
        yield examples.take(order[start:stop])


def _joined(parts: list[Examples]) -> Examples:
    return Examples(
        np.concatenate([part.contents for part in parts]),
        np.concatenate([part.logics for part in parts]),
        np.concatenate([part.services for part in parts]),
        SparseRows.concat([part.features for part in parts]),
        np.concatenate([part.rewards for part in parts]),
        np.concatenate([part.propensities for part in parts]),
        np.concatenate([part.times_s for part in parts]),
        np.concatenate([part.clicked for part in parts]),
    )
