"""Features in columns: dense blocks of one side of many decisions, their crosses, and how they become sparse rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing, segments
from banditmesh.bandits.batch import SparseRows

Column = tuple[Literal["user", "content"], int]
"""A side of a decision, and a column of its block."""


@dataclass(frozen=True, slots=True, eq=False)
class FieldBlock:
    """Features of one side, in columns. A value of 0 is no feature: to every model it is the same as absence.

    Attributes:
        ids: uint32[n_rows, n_columns].
        values: float32[n_rows, n_columns].
    """

    ids: NDArray[np.uint32]
    values: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> FieldBlock:
        """The rows of the given numbers (int64[n])."""
        # A tenth of the time that indexing by an array takes.
        return FieldBlock(self.ids.take(rows, axis=0), self.values.take(rows, axis=0))

    def columns(self, at: NDArray[np.int64]) -> FieldBlock:
        """The columns of the given numbers (int64[n])."""
        return FieldBlock(self.ids[:, at], self.values[:, at])

    def beside(self, right: FieldBlock) -> FieldBlock:
        """The columns of both, these ones first."""
        return FieldBlock(
            np.concatenate([self.ids, right.ids], axis=1), np.concatenate([self.values, right.values], axis=1)
        )

    def crossed(self, right: FieldBlock) -> FieldBlock:
        """The cross of each column with the one at the same place of the other block; that of a number with anything
        carries the product."""
        return FieldBlock(hashing.cross(self.ids, right.ids), self.values * right.values)

    def sparse(self) -> SparseRows:
        """The same rows without what is absent, in the order of the columns. May share memory with the block."""
        rows, columns = self.values.shape
        complete = np.arange(rows + 1) * columns
        if self.values.all():  # nothing is absent, as most of the time
            return SparseRows(complete, self.ids.ravel(), self.values.ravel())
        present = self.values != 0.0
        return SparseRows(segments.kept_offsets(complete, present.ravel()), self.ids[present], self.values[present])


class Crosses:
    """Crosses of the columns of a decision's two sides."""

    def __init__(self, pairs: Sequence[tuple[Column, Column]], content_columns: int) -> None:
        """``content_columns``: how many the content's side has."""
        self._left = _Operand([left for left, _ in pairs], content_columns)
        self._right = _Operand([right for _, right in pairs], content_columns)
        self._n = len(pairs)

    def __len__(self) -> int:
        return self._n

    def of(self, users: FieldBlock, contents: FieldBlock, owners: NDArray[np.int64]) -> FieldBlock:
        """A row for each content and a column for each cross. `owners`: int64[n_contents], the row of its user."""
        return self._left.of(users, contents, owners).crossed(self._right.of(users, contents, owners))


class _Operand:
    """The columns on one hand of all crosses, gathered with as few copies as can be: those of users from the short
    block, before its rows are repeated for each content."""

    def __init__(self, columns: Sequence[Column], content_columns: int) -> None:
        sides = {side for side, _ in columns}
        self._side = sides.pop() if len(sides) == 1 else "both"
        shift = content_columns if self._side == "both" else 0  # of the user's columns, beside the content's
        self._at = np.array([at + (shift if side == "user" else 0) for side, at in columns], np.int64)

    def of(self, users: FieldBlock, contents: FieldBlock, owners: NDArray[np.int64]) -> FieldBlock:
        if self._side == "user":
            return users.columns(self._at).take(owners)
        if self._side == "content":
            return contents.columns(self._at)
        return contents.beside(users.take(owners)).columns(self._at)
