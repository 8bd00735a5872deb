"""Encoded examples for later passes: in memory up to a bound, beyond it in a temporary file.

The file has no name (`tempfile.TemporaryFile`), so it is gone with the process, however that ends.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Examples, SparseRows
from banditmesh.runtime.errors import ResourceExhausted

_DTYPES: Final = tuple(map(np.dtype, ["u8", "u8", "u8", "f8", "i8", "f4", "f4", "u4", "f4", "?", "?"]))
"""Of what `_arrays` lists; the widest first, so that each array stands aligned behind the one before."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """n examples, and which of them are of rows that are held out: bool[n]."""

    examples: Examples
    held_out: NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        return sum(array.nbytes for array in _arrays(self))


class Spill:
    """Blocks in the order in which they came.

    Args:
        memory_bytes: all blocks together up to this size stay in memory; with the one that exceeds it, all go into the
            file, so that only a block that was asked for is in memory.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.nbytes = 0
        self.examples = 0
        self.held_out = 0
        self._memory_bytes = memory_bytes
        self._blocks: list[Block] = []
        self._places: list[tuple[int, int, int]] = []  # offset in the file, examples, entries
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def append(self, block: Block) -> None:
        """Keeps a block. Raises ResourceExhausted when the disk of the temporary folder is full."""
        self._places.append((self.nbytes, len(block.examples), len(block.examples.features.ids)))
        self.nbytes += block.nbytes
        self.examples += len(block.examples)
        self.held_out += int(block.held_out.sum())
        self._blocks.append(block)
        if self._file is not None or self.nbytes > self._memory_bytes:
            self._write()

    def read(self, at: int) -> Block:
        """The block of this number."""
        return self._blocks[at] if self._file is None else self._read(self._file, *self._places[at])

    def size(self, at: int) -> int:
        """Bytes of the block of this number."""
        end = self._places[at + 1][0] if at + 1 < len(self) else self.nbytes
        return end - self._places[at][0]

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = file = tempfile.TemporaryFile(prefix="banditmesh-fit-")  # noqa: SIM115 it lives as long as we
                weakref.finalize(self, file.close)
            for block in self._blocks:
                for array in _arrays(block):
                    self._file.write(array.data)
            self._file.flush()
        except OSError as error:
            raise ResourceExhausted(
                f"the examples do not fit into {tempfile.gettempdir()}: {error.strerror} after {self.nbytes >> 20} MiB",
                hint="TMPDIR names another folder; with --epochs 1 nothing is kept",
            ) from error
        self._blocks.clear()

    def _read(self, file: IO[bytes], offset: int, n: int, entries: int) -> Block:
        lengths = (n, n, n, n, n + 1, n, n, entries, entries, n, n)
        sizes = [length * dtype.itemsize for length, dtype in zip(lengths, _DTYPES, strict=True)]
        buffer = np.empty(sum(sizes), np.uint8)
        file.seek(offset)
        file.readinto(buffer.data)  # type: ignore[attr-defined] # of every binary file
        ends = np.cumsum(sizes).tolist()
        arrays = [buffer[end - size : end].view(dtype) for end, size, dtype in zip(ends, sizes, _DTYPES, strict=True)]
        contents, logics, services, times_s, offsets, rewards, propensities, ids, values, clicked, held_out = arrays
        features = SparseRows(offsets, ids, values)
        return Block(Examples(contents, logics, services, features, rewards, propensities, times_s, clicked), held_out)


def joined(blocks: Sequence[Block]) -> Block:
    """One block of several, of which there is at least one."""
    if len(blocks) == 1:
        return blocks[0]
    parts = [block.examples for block in blocks]
    return Block(
        Examples(
            np.concatenate([part.contents for part in parts]),
            np.concatenate([part.logics for part in parts]),
            np.concatenate([part.services for part in parts]),
            SparseRows.concat([part.features for part in parts]),
            np.concatenate([part.rewards for part in parts]),
            np.concatenate([part.propensities for part in parts]),
            np.concatenate([part.times_s for part in parts]),
            np.concatenate([part.clicked for part in parts]),
        ),
        np.concatenate([block.held_out for block in blocks]),
    )


def _arrays(block: Block) -> tuple[NDArray[Any], ...]:
    one, features = block.examples, block.examples.features
    return (
        *(one.contents, one.logics, one.services, one.times_s, features.offsets),
        *(one.rewards, one.propensities, features.ids, features.values),
        *(one.clicked, block.held_out),
    )
