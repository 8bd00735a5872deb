"""Mini-batches of the policies on hashed features: examples that wait for more, and the step that they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.errors import InvalidTensors
from banditmesh.bandits.policy import Tensors, tensor
from banditmesh.bandits.table import Grouping, Rows

_FEW_COLUMNS, _MANY_ROWS = 16, 256


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A mini-batch of n examples, ready to learn from: each feature once in a row, its value in its own unit.

    Attributes:
        offsets: int64[n + 1], row i owns the entries offsets[i]:offsets[i + 1].
        owner: int64[n_entries], the row of each entry.
        entries: int32[n_entries], where each feature stands in the table.
        new: int32[n_new], those that stand there for the first time.
        group: the entries, grouped by feature.
        x: float32[n_entries], in units of the feature's root mean square.
        share: float64[n_features], which part of the feature's examples of one pass, as far as known, are these.
        rewards: float64[n].
        crossed: bool[n_entries], whether the feature is a cross of two others.
    """

    offsets: NDArray[np.int64]
    owner: NDArray[np.int64]
    entries: Rows
    new: Rows
    group: Grouping
    x: NDArray[np.float32]
    share: NDArray[np.float64]
    rewards: NDArray[np.float64]
    crossed: NDArray[np.bool_]

    def without_crosses(self) -> Step:
        """The same examples with the features as they were given alone."""
        if not np.count_nonzero(self.crossed):
            return self
        kept = ~self.crossed
        group = Grouping.of(self.entries[kept])
        share = self.share[np.searchsorted(self.group.rows, group.rows)]
        offsets = segments.kept_offsets(self.offsets, kept)
        entries, owner, x = self.entries[kept], self.owner[kept], self.x[kept]
        return Step(offsets, owner, entries, self.new, group, x, share, self.rewards, self.crossed[kept])


class Batch:
    """Examples with folded features: `features` n rows, `rewards` and `times_s` float64[n]."""

    __slots__ = ("features", "rewards", "times_s")

    def __init__(self, features: SparseRows, rewards: NDArray[np.float64], times_s: NDArray[np.float64]) -> None:
        self.features, self.rewards, self.times_s = features, rewards, times_s

    @classmethod
    def empty(cls) -> Batch:
        return cls(SparseRows.empty(0), np.zeros(0), np.zeros(0))

    def before(self, other: Batch) -> Batch:
        if not len(self.rewards):
            return other
        return Batch(
            SparseRows.concat([self.features, other.features]),
            np.concatenate([self.rewards, other.rewards]),
            np.concatenate([self.times_s, other.times_s]),
        )

    def part(self, start: int, stop: int) -> Batch:
        return Batch(self.features.part(start, stop), self.rewards[start:stop], self.times_s[start:stop])

    def tensors(self) -> Tensors:
        """A copy, each name with "waiting_" before it."""
        return {
            "waiting_offsets": self.features.offsets.copy(),
            "waiting_ids": self.features.ids.copy(),
            "waiting_values": self.features.values.copy(),
            "waiting_rewards": self.rewards.copy(),
            "waiting_times_s": self.times_s.copy(),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Batch:
        """What gave these tensors. Raises `InvalidTensors`."""
        ids = tensor(tensors, "waiting_ids", np.uint32, (None,))
        values = tensor(tensors, "waiting_values", np.float32, (len(ids),))
        rewards = tensor(tensors, "waiting_rewards", np.float64, (None,))
        times_s = tensor(tensors, "waiting_times_s", np.float64, (len(rewards),))
        offsets = tensor(tensors, "waiting_offsets", np.int64, (len(rewards) + 1,))
        if offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
            raise InvalidTensors("do not cut waiting_ids", field="waiting_offsets")
        return cls(SparseRows(offsets, ids, values), rewards, times_s)


def distinct(rows: SparseRows) -> SparseRows:
    """The same rows with each id once in a row, its values added up. Hardly ever anything to do, so told fast."""
    if _side_by_side_differ(rows):
        return rows
    keys = (segments.owners(rows.offsets).astype(np.uint64) << np.uint64(32)) | rows.ids
    ordered = np.sort(keys)
    if not (ordered[1:] == ordered[:-1]).any():
        return rows
    once, member = np.unique(keys, return_inverse=True)
    offsets = np.searchsorted(once, np.arange(len(rows) + 1, dtype=np.uint64) << np.uint64(32))
    values = np.bincount(member, rows.values).astype(np.float32)
    return SparseRows(offsets, (once & np.uint64(0xFFFFFFFF)).astype(np.uint32), values)


def _side_by_side_differ(rows: SparseRows) -> bool:
    """Whether no id stands twice in a row, told for many short rows of one length: False may mean that it is unknown.

    Each pair of columns is compared. For a thousand rows of ten that takes half the time of sorting them.
    """
    width = segments.width(rows.offsets)
    if not 0 < width <= _FEW_COLUMNS or len(rows) < _MANY_ROWS:
        return False
    columns = np.ascontiguousarray(rows.ids.reshape(-1, width).T)
    return not any(np.count_nonzero(columns[apart:] == columns[:-apart]) for apart in range(1, width))
