"""What the log alone can tell: IPS around the middle of the rewards, within bounds that need no tail to be seen."""

from __future__ import annotations

from statistics import NormalDist
from typing import ClassVar

import numpy as np

from banditmesh.ope.estimator import Estimator, Terms
from banditmesh.ope.interval import UNKNOWN, Interval
from banditmesh.ope.rows import Rows


class Bounds(Estimator):
    """V = m + 1/n sum w_i (r_i - m), with m the middle between the least and the largest reward.

    Unbiased as IPS is, with the weight itself as control variate. Its interval (`Support.bounds`) holds however heavy
    the weights are that the log has not shown; it is narrow where others' are not, and wide where rewards are rare.
    """

    name: ClassVar[str] = "bounds"

    def _terms(self, rows: Rows) -> Terms:
        weights = rows.weights
        return weights * rows.rewards, weights

    @property
    def value(self) -> float:
        """See the class; within the bounds of 95 %, which a single weight of a million can take it out of."""
        if not self.n:
            return float("nan")
        middle = self._middle
        found = middle + float(np.array([1.0, -middle]) @ self._moments.mean)
        return Interval(found, found).within(self.support.bounds()).lower

    @property
    def _middle(self) -> float:
        return sum(self.support.rewards) / 2

    def _own(self, confidence: float, rewards: Interval) -> Interval:
        return self.support.bounds(confidence, rewards)

    def normal(self, confidence: float = 0.95) -> Interval:
        """See `Estimator.normal`."""
        if self.n < 2:
            return UNKNOWN
        half = NormalDist().inv_cdf(0.5 + confidence / 2) * self._moments.along(np.array([1.0, -self._middle]))[0]
        return Interval(self.value - half, self.value + half)
