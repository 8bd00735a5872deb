"""The bootstrap of a stream: each row counts Poisson(1) times in each replicate, by a hash of its key.

Chamandy, Muralidharan, Najmi, Naidu 2012, "Estimating Uncertainty for Massive Data Streams": for n rows the
multinomial counts of the classical bootstrap (Efron 1979) are nearly independent Poisson(1). Because a count is a
function of key, replicate and seed, nothing depends on the order of rows, and shards add up to the whole.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashing import mix64, uniform

_CDF = np.cumsum([math.exp(-1.0) / math.factorial(count) for count in range(18)])
_ROWS_AT_ONCE = 1024
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class PoissonBootstrap:
    """Replicated sums of pairs: float64[replicates, 2]."""

    def __init__(self, replicates: int, seed: int) -> None:
        self.sums = np.zeros((replicates, 2))
        self._salts = mix64((np.arange(replicates, dtype=np.uint64) + np.uint64(1)) * _GOLDEN + np.uint64(seed))

    def add(self, keys: NDArray[np.uint64], pairs: NDArray[np.float64]) -> None:
        """Takes in rows: keys uint64[n], pairs float64[n, 2]."""
        for start in range(0, len(keys) if len(self.sums) else 0, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            drawn = uniform(mix64(self._salts[:, None] ^ mix64(keys[part] + _GOLDEN)))
            self.sums += np.searchsorted(_CDF, drawn, side="right") @ pairs[part]

    def merge(self, other: PoissonBootstrap) -> None:
        """Adds the rows of `other`, which must be others, under the same replicates and seed."""
        self.sums = self.sums + other.sums
