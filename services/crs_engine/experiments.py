"""Who is in which variant: weighted rendezvous hashing, so that a user stays and a change of weights moves few.

Each variant i draws u_i in (0, 1) from a hash of (salt, variant, user), and the one of the greatest w_i / -ln u_i
wins (Schindelhauer and Schomaker 2005, "Weighted distributed hash tables"). P(i) = w_i / sum w. Raising one weight
moves users only into that variant, lowering it only out of it; nobody changes between two others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing


class Assignment:
    """The variants of one placement, by their position."""

    def __init__(self, salt: str, weights: Mapping[str, float]) -> None:
        """``weights``: by variant name, each >= 0, not all 0."""
        self.names = tuple(weights)
        self._weights = np.array(list(weights.values()), np.float64)
        self._keys = np.array([hashing.key64(f"{salt}/{name}") for name in weights], np.uint64)
        (winners,) = np.nonzero(self._weights)
        self._only = int(winners[0]) if len(winners) == 1 else None

    def of(self, user_ids: Sequence[str]) -> NDArray[np.int64]:
        """``int64[n_users]``: the variant of each user."""
        if self._only is not None:
            return np.full(len(user_ids), self._only)
        digests = b"".join([blake2b(user_id.encode(), digest_size=8).digest() for user_id in user_ids])
        mixed = hashing.mix64(np.frombuffer(digests, "<u8")[:, None] ^ self._keys)
        # In (0, 1): -ln never gets 0. A weight of 0 draws 0, which no other can fall below.
        drawn = hashing.uniform(mixed) + 2.0**-54
        winners: NDArray[np.int64] = np.argmax(self._weights / -np.log(drawn), axis=1)
        return winners
