"""Per-feature state: a table that is keyed by hashed feature ids and holds rows only for the features that were seen.

Ids are folded to `bits` bits. A direct index (int32[2^bits], 16 MiB at 22 bits, of which only the pages that are in use
are resident) gives a feature's row with a single gather; the columns are as long as there are live features. So memory
is (bytes of a row) times the features alive, not times 2^bits, and a snapshot holds nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.errors import InvalidTensors
from banditmesh.bandits.hashing import CROSSED
from banditmesh.bandits.policy import Tensors, tensor

Rows = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Column:
    """A float32 column: `width` numbers a feature, or one where that is 0; an unseen feature has `prior` in each.
    `added`: models that were saved before there was such a column are at its prior."""

    width: int
    prior: float
    added: bool = False

    def blank(self, n: int) -> NDArray[np.float32]:
        """float32[n] or float32[n, width], all at the prior."""
        return np.full((n, self.width) if self.width else n, self.prior, np.float32)


class FeatureTable:
    """See the module. Row 0 is the prior, and the row of every unseen feature; it is never written.

    `last_s` (float64, when the feature was last learned from) is there in every table. Exported sorted by id, so that
    the order in which features appeared leaves no trace.
    """

    def __init__(self, bits: int, columns: Mapping[str, Column]) -> None:
        self._mask = np.uint32((1 << bits) - 1)
        self._types = dict(columns)
        self._columns: dict[str, NDArray[np.float32]] = {name: column.blank(1) for name, column in columns.items()}
        self._last_s = np.full(1, -np.inf)
        self._ids = np.zeros(1, np.uint32)  # of each row; that of row 0 means nothing
        self._index = np.zeros(1 << bits, np.int32)
        self._size = 1
        self.generation = 0  # counts the times when features were added or dropped

    def __len__(self) -> int:
        """How many features are alive."""
        return self._size - 1

    def __getitem__(self, column: str) -> NDArray[np.float32]:
        """[1 + n_features, ...]: the column by row, writable after `claim`."""
        return self._columns[column][: self._size]

    def fold(self, ids: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """uint32[n]: the ids as this table knows them, and whether they are `CROSSED`; two features that fold into one
        share a row."""
        return ids & (self._mask | CROSSED)

    def find(self, folded: NDArray[np.uint32]) -> Rows:
        """int32[n]: the row of each folded id, 0 for an unseen feature."""
        return self._index.take(folded & self._mask)

    def claim(self, folded: NDArray[np.uint32]) -> tuple[Rows, Rows]:
        """The row of each folded id, and the rows that are new (at the prior). All columns are writable afterwards."""
        rows = self.find(folded)
        new = np.unique(folded[rows == 0] & self._mask)
        self._reserve(self._size + len(new))
        fresh = np.arange(self._size, self._size + len(new), dtype=np.int32)
        if not len(new):
            return rows, fresh
        self._ids[fresh], self._index[new] = new, fresh
        self._size += len(new)
        self.generation += 1
        return self.find(folded), fresh

    def column(self, name: str) -> NDArray[np.float32]:
        """[n_features, ...]: the column of the features alive, without the prior, to write in."""
        self._reserve(self._size)
        return self[name][1:]

    def ids(self, rows: Rows) -> NDArray[np.uint32]:
        """uint32[n]: the folded ids of these rows."""
        return self._ids[rows]

    def touch(self, rows: Rows, times_s: NDArray[np.float64]) -> None:
        """Notes when features (rows: int32[n], repeated as often as they like) were learned from: float64[n]."""
        np.maximum.at(self._last_s, rows, times_s)

    def _reserve(self, size: int) -> None:
        if size > len(self._ids) or not self._ids.flags.writeable:
            room = size if size <= len(self._ids) else max(size, 2 * len(self._ids), 64)
            for name, column in self._types.items():
                grown = column.blank(room)
                grown[: self._size] = self[name]
                self._columns[name] = grown
            self._ids = np.append(self._ids[: self._size], np.zeros(room - self._size, np.uint32))
            self._last_s = np.append(self._last_s[: self._size], np.full(room - self._size, -np.inf))

    def retire(self, now_s: float, most: int, after_s: float | None) -> None:
        """Drops features not learned from for `after_s` seconds, then the oldest above `most`."""
        last_s = self._last_s[1 : self._size]
        keep = np.ones(len(self), np.bool_)
        if after_s is not None:
            keep &= last_s >= now_s - after_s
        surplus = int(keep.sum()) - most
        if surplus > 0:
            # By time, then by id: among equally old features the lower id goes first, on every replica.
            oldest = np.lexsort((self._ids[1 : self._size], np.where(keep, last_s, np.inf)))
            keep[oldest[:surplus]] = False
        if not keep.all():
            self._index[self._ids[1 : self._size][~keep]] = 0
            self._keep(np.append(0, np.flatnonzero(keep) + 1))

    def _keep(self, rows: NDArray[np.int64]) -> None:
        self._columns = {name: column[rows] for name, column in self._columns.items()}
        self._ids, self._last_s, self._size = self._ids[rows], self._last_s[rows], len(rows)
        self._index[self._ids[1:]] = np.arange(1, len(rows), dtype=np.int32)
        self.generation += 1

    def tensors(self) -> Tensors:
        """A copy: "ids" (folded, rising), "last_s", and the columns, with the prior as row 0 of each."""
        order = np.append(0, np.argsort(self._ids[1 : self._size]) + 1)
        columns = {name: column[order] for name, column in self._columns.items()}
        return {"ids": self._ids[order[1:]], "last_s": self._last_s[order[1:]], **columns}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what `tensors` gave; the columns without copying. Raises `InvalidTensors`."""
        ids = tensor(tensors, "ids", np.uint32, (None,))
        if (ids[1:] <= ids[:-1]).any():
            raise InvalidTensors("must rise strictly", field="ids")
        if len(ids) and ids[-1] > self._mask:
            raise InvalidTensors(f"{ids[-1]} is above {self._mask}, the largest of this many bits", field="ids")
        for name, column in self._types.items():
            shape = (len(ids) + 1, column.width) if column.width else (len(ids) + 1,)
            if column.added and name not in tensors:
                self._columns[name] = column.blank(len(ids) + 1)
                continue
            restored = tensor(tensors, name, np.float32, shape)
            if not np.isfinite(restored).all():
                raise InvalidTensors("holds a number that is not finite", field=name)
            self._columns[name] = restored
        self._last_s = np.append(-np.inf, tensor(tensors, "last_s", np.float64, (len(ids),)))
        self._ids, self._size = np.append(np.uint32(0), ids), len(ids) + 1
        self._ids.flags.writeable = False  # the columns may be mapped: the first claim copies them all
        self._index[ids] = np.arange(1, self._size, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """The entries of a mini-batch, grouped by feature.

    Attributes:
        rows: int32[n_features], each feature's row once.
        member: int64[n_entries], position in `rows` of each entry.
        order, starts: `order` (int64[n_entries]) puts the entries of a feature together, `starts` is where each begins.
    """

    rows: Rows
    member: NDArray[np.int64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows) -> Grouping:
        """Groups entries by their rows (int32[n_entries])."""
        # Row and position in one number: sorting those is ten times as fast as a stable argsort of the rows.
        packed = np.sort((rows.astype(np.int64) << 32) | np.arange(len(rows)))
        order, ordered = packed & 0xFFFFFFFF, (packed >> 32).astype(np.int32)
        first = np.ones(len(rows), np.bool_)
        first[1:] = ordered[1:] != ordered[:-1]
        member = np.empty(len(rows), np.int64)
        member[order] = np.cumsum(first) - 1
        return cls(ordered[first], member, order, np.flatnonzero(first))

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """[n_entries, ...] -> [n_features, ...]: sums over the entries of each feature, in their order."""
        if values.ndim == 1:
            return np.bincount(self.member, values, len(self.rows))
        return np.add.reduceat(values[self.order], self.starts, axis=0) if len(self.rows) else values[:0]
