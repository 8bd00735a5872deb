"""From sparse hashed features to a short dense vector, for policies that keep a matrix per arm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.hashing import mix32


@dataclass(frozen=True, slots=True)
class SignedProjection:
    """Feature hashing with signs (Weinberger et al. 2009, Eq. 2) into `dimension` - 1 coordinates.

    phi_i(x) = sum over features j with h(j) = i of xi(j) x_j. The sign xi makes collisions cancel on average: inner
    products stay unbiased. Coordinate 0 is left free for the bias.
    """

    dimension: int

    def rows(self, features: SparseRows) -> NDArray[np.float64]:
        """float64[n_rows, dimension], coordinate 0 zero. Linear: the rows of two parts add up to those of both."""
        mixed = mix32(features.ids)
        # The high bits choose the coordinate (multiply-shift instead of a division), the lowest one the sign.
        coordinate = (mixed.astype(np.uint64) * np.uint64(self.dimension - 1)) >> np.uint64(32)
        signed = features.values * (1.0 - 2.0 * (mixed & np.uint32(1)))
        n = len(features)
        row = np.repeat(np.arange(1, n * self.dimension + 1, self.dimension), np.diff(features.offsets))
        # bincount adds in the order of the entries: the same row gives the same bits in every batch.
        flat = np.bincount(row + coordinate.astype(np.int64), weights=signed, minlength=n * self.dimension)
        return np.asarray(flat, np.float64).reshape(n, self.dimension)
