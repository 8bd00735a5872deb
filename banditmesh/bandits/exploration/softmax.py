"""The better the mean, the likelier."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.exploration.base import Beliefs, Exploration


class Softmax(Exploration):
    """p proportional to exp(mean / temperature)."""

    name: ClassVar[str] = "softmax"

    temperature: float = Field(
        default=0.1,
        ge=1e-6,
        description="Difference of means, in units of reward, that changes the odds by a factor of e.",
    )

    def _shares(self, beliefs: Beliefs, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = segments.lengths(offsets)
        # Against the best of the decision the exponent is never above 0: nothing overflows, and the sum is at least 1.
        weights = np.exp((beliefs.mean - np.repeat(segments.maxima(beliefs.mean, offsets), counts)) / self.temperature)
        return np.asarray(weights / np.repeat(segments.sums(weights, offsets), counts))
