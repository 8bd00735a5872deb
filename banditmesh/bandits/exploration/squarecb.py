"""Inverse gap weighting: the further a candidate is behind the best one, the more rarely it is shown.

SquareCB (Foster and Rakhlin 2020, Algorithm 1): with n candidates, of which the best mean is that of b,

    p_a = 1 / (n + gamma_t (mean_b - mean_a)),    p_b = 1 - the sum of all others.

Its regret is least with gamma_t = sqrt(n) / (root mean square error of the means of what is shown), up to a constant
(their Theorem 1, one decision at a time). What is shown is mostly b, so that error is taken to be b's deviation: no
count of decisions is needed, and after a change, when a policy is less sure, it explores more.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.exploration.base import Beliefs, Exploration, share_among_best

_LEAST = 1e-12


class SquareCb(Exploration):
    """Each candidate by how far it is behind the best mean; what ties with it has an equal part of what is left."""

    name: ClassVar[str] = "squarecb"

    gamma: float = Field(
        default=64.0,
        gt=0,
        description="How fast what is behind gets rarer: gaps count gamma times, in deviations of the best candidate; "
        "above it explores less.",
    )

    def _shares(self, beliefs: Beliefs, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = segments.lengths(offsets)
        best = share_among_best(beliefs.mean, offsets)
        is_best = best > 0
        n = np.repeat(counts, counts).astype(np.float64)
        top = np.repeat(segments.maxima(beliefs.mean, offsets), counts)
        unit = np.repeat(segments.sums(best * beliefs.deviation, offsets), counts)
        gap = (top - beliefs.mean) / np.maximum(unit, _LEAST)
        shares = 1.0 / (n + self.gamma * np.sqrt(n) * gap)
        shares[is_best] = 0.0
        left = 1.0 - segments.sums(shares, offsets)
        shares += best * np.repeat(left, counts)
        return np.asarray(shares)
