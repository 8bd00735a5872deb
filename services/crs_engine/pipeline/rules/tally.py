"""How often something stands on the lists: what caps count by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.crs_engine.pipeline.batch import Mask
from services.crs_engine.pipeline.rules.base import Draw, Restraint


class Cap(Restraint):
    """At most so many items of one code on each user's list.

    Attributes:
        codes: int64[n_items, k], the codes of each item, each below ``n_codes``; -1 where it has none (any more).
    """

    def __init__(self, draw: Draw, codes: NDArray[np.int64], n_codes: int, most: int) -> None:
        self._draw = draw
        self._most = most
        self._n_codes = n_codes
        self.codes = codes
        self._own = codes[: len(draw.pool)]
        self._owners = draw.pool.owners

    def blocks(self, before: NDArray[np.int64], free: Mask) -> Mask | None:
        """See `Constraint.blocks`."""
        full = self.on_list(before) >= self._most
        if not full.any():
            return None
        return np.asarray((full[self._owners[:, None], self._own] & (self._own >= 0)).any(axis=1))

    def on_list(self, before: NDArray[np.int64]) -> NDArray[np.int64]:
        """``int64[n_users, n_codes]``: how often each code stands on each list."""
        listed = self._draw.listed(before)
        users, positions = np.nonzero(listed >= 0)
        codes = self.codes[listed[users, positions]]
        cells = (users * self._n_codes)[:, None] + codes
        counts = np.bincount(cells[codes >= 0], minlength=len(listed) * self._n_codes)
        return counts.reshape(len(listed), self._n_codes)

    def full(self, at: int, before: NDArray[np.int64]) -> tuple[int, int]:
        """The first code of the candidate at that place that its list has enough of, and how many it has."""
        counts = self.on_list(before)[self._owners[at]]
        code = next(each for each in self._own[at].tolist() if each >= 0 and counts[each] >= self._most)
        return code, int(counts[code])


def dense(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Small codes for keys (uint64[n, k]; 0 is none): int64[n, k] with -1 for none, and the key of each code."""
    found, codes = np.unique(keys, return_inverse=True)
    codes = codes.reshape(keys.shape).astype(np.int64)
    if len(found) and found[0] == 0:
        return codes - 1, found[1:]
    return codes, found
