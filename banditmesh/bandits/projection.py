"""From sparse hashed features to a short dense vector, for policies that keep a matrix per arm.

A projection is linear: the rows of two parts add up to those of both. `intercept` says whether coordinate 0 is left
free for the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.hashing import mix32, numeric_id


class Projection(Protocol):
    """What both kinds are."""

    intercept: ClassVar[bool]

    @property
    def dimension(self) -> int: ...

    def rows(self, features: SparseRows) -> NDArray[np.float64]:
        """float64[n_rows, dimension]."""
        ...


@dataclass(frozen=True)
class SignedProjection:
    """Feature hashing with signs (Weinberger et al. 2009, Eq. 2) into `dimension` - 1 coordinates.

    phi_i(x) = sum over features j with h(j) = i of xi(j) x_j. The sign xi makes collisions cancel on average: inner
    products stay unbiased. Coordinate 0 is left free for the bias.
    """

    dimension: int
    intercept: ClassVar[bool] = True

    def rows(self, features: SparseRows) -> NDArray[np.float64]:
        """float64[n_rows, dimension], coordinate 0 zero."""
        mixed = mix32(features.ids)
        # The high bits choose the coordinate (multiply-shift instead of a division) ...
        coordinate = mixed.astype(np.uint64)
        coordinate *= np.uint64(self.dimension - 1)
        coordinate >>= np.uint64(32)
        # ... and the lowest one the sign: moved to where float32 has its own, it flips that without a multiplication.
        signed = (features.values.view(np.uint32) ^ (mixed << np.uint32(31))).view(np.float32)
        n = len(features)
        row = np.repeat(np.arange(1, n * self.dimension + 1, self.dimension), segments.lengths(features.offsets))
        row += coordinate.view(np.int64)  # below 2^32: the same numbers
        # bincount adds in the order of the entries: the same row gives the same bits in every batch.
        flat = np.bincount(row, weights=signed, minlength=n * self.dimension)
        return np.asarray(flat, np.float64).reshape(n, self.dimension)


class NamedFields:
    """The numeric fields of these names, a coordinate each in their order, and nothing else: no hashing, no bias."""

    intercept: ClassVar[bool] = False

    def __init__(self, names: Sequence[str]) -> None:
        self._given = np.array([numeric_id(name) for name in names], np.uint32)
        self.dimension = len(names)
        self._coordinate = np.argsort(self._given)
        self._ids = self._given[self._coordinate]

    def rows(self, features: SparseRows) -> NDArray[np.float64]:
        """float64[n_rows, dimension]; features of other names are passed over."""
        n, ids = len(features), features.ids
        regular = segments.width(features.offsets) == self.dimension
        if regular and np.count_nonzero(ids.reshape(n, -1) == self._given) == len(ids):
            # Every row has these fields in this order, as complete features do.
            return features.values.reshape(n, -1).astype(np.float64)
        at = np.minimum(np.searchsorted(self._ids, ids), self.dimension - 1)
        mine = self._ids[at] == ids
        row = np.repeat(np.arange(0, n * self.dimension, self.dimension), segments.lengths(features.offsets))
        flat = np.bincount(
            (row + self._coordinate[at])[mine], weights=features.values[mine], minlength=n * self.dimension
        )
        return np.asarray(flat, np.float64).reshape(n, self.dimension)
