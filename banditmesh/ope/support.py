"""How much of what the evaluated policy does the log has seen, and what follows from the weights alone.

The weights w = pi / p have mean 1 when the propensities are right and positive wherever the policy goes. What is
missing to 1 is the share of the policy's decisions that the log cannot show; more than 1 means wrong propensities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from banditmesh.ope.interval import Interval, lower, upper
from banditmesh.ope.moments import Moments
from banditmesh.ope.rows import Rows

SHIFTED_AT: Final = 0.999
"""Confidence at which a mean weight counts as another one than 1."""
ROUNDED: Final = 1e-4
"""Logged propensities are float32: where all weights are 1, their mean is certainly not, and nothing is wrong."""
_NOTHING = (0.0, 0.0)
_NO_REWARD = Interval(math.inf, -math.inf)


@dataclass
class Support:
    """Sums over the weights; mergeable.

    Attributes:
        largest: the largest weight.
        largest_key: the key of its row.
        seen: the least and the largest reward that the log has.
    """

    largest: float = 0.0
    largest_key: int = 0
    seen: Interval = _NO_REWARD
    _moments: Moments = field(default_factory=Moments)  # of (w r, w)

    def add(self, rows: Rows) -> None:
        """Takes in rows, at least one."""
        weights = rows.weights
        at = int(np.argmax(weights))
        self._moments.add(np.column_stack((weights * rows.rewards, weights)))
        self._note(float(weights[at]), int(rows.keys[at]), Interval(rows.rewards.min(), rows.rewards.max()))

    def merge(self, other: Support) -> None:
        """Adds the rows that `other` has seen."""
        self._moments.merge(other._moments)
        self._note(other.largest, other.largest_key, other.seen)

    def _note(self, weight: float, key: int, rewards: Interval) -> None:
        if (weight, -key) > (self.largest, -self.largest_key):
            self.largest, self.largest_key = weight, key
        self.seen = Interval(min(self.seen.lower, float(rewards.lower)), max(self.seen.upper, float(rewards.upper)))

    @property
    def n(self) -> int:
        """How many rows."""
        return self._moments.n

    @property
    def mean_weight(self) -> float:
        """1 when all is well; NaN without rows."""
        return float(self._moments.mean[1]) if self.n else math.nan

    @property
    def effective(self) -> float:
        """Kish's effective sample size (sum w)² / sum w²: so many rows of equal weight say as much; 0 without any."""
        mean = float(self._moments.mean[1])
        squares = float(self._moments.scatter[1, 1]) + self.n * mean**2
        return (self.n * mean) ** 2 / squares if squares > 0 else 0.0

    @property
    def rewards(self) -> Interval:
        """The range of rewards as far as the log tells; from 0 to 1 at least when it has but one, or none at all."""
        if self.seen.lower < self.seen.upper:
            return self.seen
        return Interval(min(self.seen.lower, 0.0), max(self.seen.upper, 1.0))

    @property
    def limits(self) -> Interval:
        """What no expected reward goes beyond: 0 and 1 when all rewards lie there; else nothing is known."""
        within = self.seen.lower >= 0.0 and self.seen.upper <= 1.0
        return Interval(0.0, 1.0) if within or not self.n else Interval(-math.inf, math.inf)

    @property
    def shifted(self) -> bool:
        """Whether the mean weight is certainly another one than 1, by the weights alone."""
        if self.n < 2:
            return False
        gradient, mean = np.array([0.0, 1.0]), self.mean_weight
        return (
            mean + upper(self._moments, gradient, (0.0, self.largest), SHIFTED_AT) < 1.0 - ROUNDED
            or mean + lower(self._moments, gradient, _NOTHING, SHIFTED_AT) > 1.0 + ROUNDED
        )

    def bounds(self, confidence: float = 0.95, rewards: Interval | None = None) -> Interval:
        """Where the expected reward lies whatever the policy earns where the log has not seen it.

        For rewards in [l, u] and every weight or a smaller one in its place, V >= l + E[w (r - l)] and
        V <= u - E[w (u - r)]: what is missing of the weights counts as l below and as u above. Both are lower bounds of
        means of numbers >= 0, whose unseen tail can only raise them (so Karampatziakis, Mineiro, Ramdas 2021,
        "Off-policy confidence sequences"). Propensities that are wrong can contradict themselves: then the
        answer is [l, u].
        """
        least, most = self.rewards if rewards is None else rewards
        if self.n < 2:
            return Interval(least, most)
        found = []
        for gradient in (np.array([1.0, -least]), np.array([-1.0, most])):
            mean = float(gradient @ self._moments.mean)
            found.append(max(mean + lower(self._moments, gradient, _NOTHING, confidence), 0.0))
        below, above = least + found[0], most - found[1]
        return Interval(below, above) if below <= above else Interval(least, most)
