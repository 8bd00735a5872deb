"""How many different users were seen, and in which variant: a sample of them by hash, of bounded size.

All users are in it until there are too many; then half of the hashes are let go of, for good, and so on: adaptive
sampling (Wegman 1984; Flajolet 1990, "On adaptive sampling"). Who is in the sample depends on the user's hash alone,
never on the variant, so the variants' shares in it are those of all users.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashing import mix64

CAPACITY: Final = 1 << 16
"""Users of the sample at most: their number is exact up to it, and beyond it within 0.6 % (one standard deviation)."""
_SALT: Final = np.uint64(0x5851F42D4C957F2D)
"""So that being in the sample has nothing to do with variants or buckets, which come from the same hashes."""


class People:
    """The sample.

    Attributes:
        halvings: how often it was thinned out.
        hashes: uint64[n], ascending.
        variants: int64[n], where each user was seen first.
    """

    def __init__(
        self,
        hashes: NDArray[np.uint64] | None = None,
        variants: NDArray[np.int64] | None = None,
        halvings: int = 0,
        capacity: int = CAPACITY,
    ) -> None:
        self.halvings = halvings
        self.hashes = np.zeros(0, np.uint64) if hashes is None else hashes
        self.variants = np.zeros(0, np.int64) if variants is None else variants
        self._capacity = capacity

    def add(self, users: NDArray[np.uint64], variants: NDArray[np.int64]) -> None:
        """Takes in users (hashed, uint64[n]) and the variants that they were seen in, in the order of time."""
        hashes = mix64(users ^ _SALT)
        found, first = np.unique(hashes, return_index=True)
        places = np.searchsorted(self.hashes, found)
        known = np.zeros(len(found), np.bool_)
        within = places < len(self.hashes)
        known[within] = self.hashes[places[within]] == found[within]
        new = ~known & self._wanted(found)
        if not new.any():
            return
        self.hashes = np.insert(self.hashes, places[new], found[new])
        self.variants = np.insert(self.variants, places[new], variants[first[new]])
        while len(self.hashes) > self._capacity:
            self.halvings += 1
            kept = self._wanted(self.hashes)
            self.hashes, self.variants = self.hashes[kept], self.variants[kept]

    def counted(self, n_variants: int) -> NDArray[np.int64]:
        """int64[n_variants]: users of the sample."""
        return np.bincount(self.variants, minlength=n_variants)

    def users(self, n_variants: int) -> NDArray[np.int64]:
        """int64[n_variants]: estimated users of each variant; exact as long as nobody was let go of."""
        return self.counted(n_variants) << self.halvings

    def _wanted(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return hashes >> np.uint64(64 - self.halvings) == 0 if self.halvings else np.ones(len(hashes), np.bool_)
