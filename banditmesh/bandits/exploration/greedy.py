"""No exploration: the best mean wins."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.exploration.base import Beliefs, Exploration, share_among_best


class Greedy(Exploration):
    """The candidate of the highest mean; ties share."""

    name: ClassVar[str] = "greedy"

    def _shares(self, beliefs: Beliefs, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        return share_among_best(beliefs.mean, offsets)
