"""Who is in which variant: weighted rendezvous hashing, so that a user stays and a change of weights moves few.

Each variant i draws u_i in (0, 1) from a hash of (salt, variant, user), and the one of the greatest w_i / -ln u_i
wins (Schindelhauer and Schomaker 2005, "Weighted distributed hash tables"). P(i) = w_i / sum w. Raising one weight
moves users only into that variant, lowering it only out of it; nobody changes between two others. When several weights
change at once no rule without a memory moves fewer for some change that does not move more for another (Moulton and
Jiang 2018, "Maximally consistent sampling and the Jaccard index of probability distributions").

Before that, a holdout and a layer take their users out, each by a hash of its own (Tang, Agarwal, O'Brien, Meyer 2010,
"Overlapping experiment infrastructure"): experiments that have other parts of one layer share no user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing
from banditmesh.runtime.experiment_options import HOLDOUT, NOT_IN_LAYER


class Part(NamedTuple):
    """A part of a layer: the users whose point, by a hash of the layer's name, is in [start, end)."""

    layer: str
    start: float
    end: float


class Assignment:
    """The variants of one placement, by their position.

    Attributes:
        names: The variants; behind them ``holdout`` and ``not_in_layer``, where there are such users.
    """

    def __init__(
        self, salt: str, weights: Mapping[str, float], *, holdout: float = 0.0, part: Part | None = None
    ) -> None:
        """
        Args:
            weights: By variant name, each >= 0, not all 0.
            holdout: Share of the users who are kept out of all experiments.
            part: The users that the experiment may have; None: all.
        """
        self._weights = np.array(list(weights.values()), np.float64)
        self._keys = np.array([hashing.key64(f"{salt}/{name}") for name in weights], np.uint64)
        (winners,) = np.nonzero(self._weights)
        self._only = int(winners[0]) if len(winners) == 1 else None
        self._holdout, self._part = holdout, part
        self.names = (*weights, *((HOLDOUT,) if holdout else ()), *((NOT_IN_LAYER,) if part else ()))

    def of(self, user_ids: Sequence[str]) -> NDArray[np.int64]:
        """``int64[n_users]``: the variant of each user."""
        if self._only is not None and not self._holdout and self._part is None:
            return np.full(len(user_ids), self._only)
        users = hashed(user_ids)
        variants = self._drawn(users)
        if self._part is not None:
            point = _points(users, f"layer/{self._part.layer}")
            variants[(point < self._part.start) | (point >= self._part.end)] = len(self.names) - 1
        if self._holdout:
            variants[_points(users, HOLDOUT) < self._holdout] = len(self._weights)
        return variants

    def _drawn(self, users: NDArray[np.uint64]) -> NDArray[np.int64]:
        mixed = hashing.mix64(users[:, None] ^ self._keys)
        # In (0, 1): -ln never gets 0. A weight of 0 draws 0, which no other can fall below.
        drawn = hashing.uniform(mixed) + 2.0**-54
        winners: NDArray[np.int64] = np.argmax(self._weights / -np.log(drawn), axis=1)
        return winners


def hashed(user_ids: Sequence[str]) -> NDArray[np.uint64]:
    """``uint64[n_users]``."""
    return np.frombuffer(b"".join([blake2b(each.encode(), digest_size=8).digest() for each in user_ids]), "<u8")


def _points(users: NDArray[np.uint64], name: str) -> NDArray[np.float64]:
    """``float64[n_users]`` in [0, 1), another one for each name."""
    return hashing.uniform(hashing.mix64(users ^ np.uint64(hashing.key64(name))))
