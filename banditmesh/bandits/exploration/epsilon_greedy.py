"""Mostly the best mean, now and then anything."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.exploration.base import Beliefs, Exploration, share_among_best


class EpsilonGreedy(Exploration):
    """With probability 1 - epsilon the highest mean (ties share), otherwise uniform over the finite scores.

    Unlike `floor`, epsilon gives nothing to a candidate whose score is not finite.
    """

    name: ClassVar[str] = "epsilon_greedy"

    epsilon: float = Field(default=0.1, ge=0, le=1, description="Probability of a uniform draw.")

    def _shares(self, beliefs: Beliefs, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = segments.lengths(offsets)
        uniform = np.repeat(self.epsilon / np.maximum(counts, 1), counts)
        return share_among_best(beliefs.mean, offsets) * (1.0 - self.epsilon) + uniform
