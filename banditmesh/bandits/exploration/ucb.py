"""Optimism: the best upper confidence bound wins."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits.batch import Scores
from banditmesh.bandits.exploration.base import Beliefs, Exploration, share_among_best


class Ucb(Exploration):
    """The candidate of the highest mean + alpha deviation (Li et al. 2010, Eq. 5); ties share.

    Deterministic but for ties and the floor. Without a floor logged propensities are 0 or 1, and of no use off-line.
    """

    name: ClassVar[str] = "ucb"

    floor: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share f that is drawn uniformly over all candidates: p <- (1 - f) p + f / n.",
    )
    alpha: float = Field(default=1.0, ge=0, description="Deviations added to the mean.")

    def bonus(self, scores: Scores) -> NDArray[np.float64]:
        """See `Exploration.bonus`: alpha deviations."""
        return self.alpha * scores.deviation.astype(np.float64)

    def _shares(self, beliefs: Beliefs, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        return share_among_best(beliefs.mean + self.alpha * beliefs.deviation, offsets)
