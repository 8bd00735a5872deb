"""What lists of one policy earn more than those of another, from the same lists: the difference is taken list by
list."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from banditmesh.ope.interval import UNKNOWN, Interval, lower, upper
from banditmesh.ope.moments import Moments
from banditmesh.ope.rows import Floats
from banditmesh.ope.slates import Assumption, ListRows
from banditmesh.ope.support import ROUNDED, SHIFTED_AT

_GAP: Final = np.array([0.0, 1.0])


class SlateDifference:
    """D = 1/n sum over lists of sum_k (w_k - w0_k) r_k, the weights of both policies by the assumption (`slates`).

    Where the two have certainly not the same weight in the log (`shifted`), one shows contents that the other does
    not and the log never did; then each position that is missing counts with the least and with the largest reward.

    Sums alone; two of them add up.
    """

    def __init__(self, assumption: Assumption) -> None:
        self.assumption = assumption
        self._moments = Moments()  # of (sum of (w - w0) r, sum of w - w0)
        self._largest = np.zeros(2)  # what a list gains and loses of weight
        self._rewards = (0.0, 0.0)

    @property
    def lists(self) -> int:
        """How many lists."""
        return self._moments.n

    def add(self, rows: ListRows, base: ListRows) -> None:
        """Takes in whole lists in batches of any size, under the policy that is judged and under the other one."""
        if not len(rows.lists):
            return
        change, starts = rows.weights(self.assumption) - base.weights(self.assumption), rows.starts
        terms, gaps = (np.add.reduceat(each, starts) for each in (change * rows.rewards, change))
        self._moments.add(np.column_stack((terms, gaps)))
        sides = [np.add.reduceat(np.maximum(each, 0.0), starts).max() for each in (change, -change)]
        self._largest = np.maximum(self._largest, sides)
        least, most = self._rewards
        self._rewards = (min(least, float(rows.rewards.min())), max(most, float(rows.rewards.max())))

    def merge(self, other: SlateDifference) -> None:
        """Adds the lists that `other` has seen."""
        self._moments.merge(other._moments)
        self._largest = np.maximum(self._largest, other._largest)
        least, most = self._rewards
        self._rewards = (min(least, other._rewards[0]), max(most, other._rewards[1]))

    @property
    def shifted(self) -> bool:
        """Whether the log certainly lacks what one of the two shows and the other does not."""
        if self.lists < 2:
            return False
        gain, loss = self._largest.tolist()
        mean = float(self._moments.mean[1])
        return (
            mean + upper(self._moments, _GAP, (0.0, gain), SHIFTED_AT) < -ROUNDED
            or mean + lower(self._moments, _GAP, (0.0, -loss), SHIFTED_AT) > ROUNDED
        )

    @property
    def value(self) -> float:
        """What a list earns more; NaN before the first."""
        if not self.lists:
            return math.nan
        middle = sum(self._rewards) / 2 if self.shifted else 0.0
        return float(np.array([1.0, -middle]) @ self._moments.mean)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Where the expected difference lies: see `banditmesh.ope.interval`; lists are the unit."""
        if self.lists < 2:
            return UNKNOWN
        counted = self._rewards if self.shifted else (0.0,)
        found = [self._around(np.array([1.0, -each]), confidence) for each in counted]
        return Interval(min(each.lower for each in found), max(each.upper for each in found))

    def _around(self, gradient: Floats, confidence: float) -> Interval:
        value = float(gradient @ self._moments.mean)
        (gain, loss), (least, most) = self._largest.tolist(), self._rewards
        low, high = (gain * least - loss * most, gain - loss), (gain * most - loss * least, gain - loss)
        return Interval(
            value + lower(self._moments, gradient, low, confidence),
            value + upper(self._moments, gradient, high, confidence),
        )
