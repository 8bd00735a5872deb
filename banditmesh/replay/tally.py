"""How a run does as it goes on: mean reward, its spread, and the learning curve."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

CURVE_POINTS = 256


class Point(NamedTuple):
    """Of a learning curve: reward per decision up to here, and since the point before."""

    decisions: int
    so_far: float
    lately: float


class Tally:
    """Sums over rewards, and at most `CURVE_POINTS` points of the curve, however long the run.

    Attributes:
        rows: rows of the log that were looked at.
        unusable: scores that were not finite, and so ranked last.
        matches: how many rewards there are.
        mean: reward per decision; NaN before the first.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.unusable = 0
        self.matches = 0
        self.mean = float("nan")
        self._scatter = 0.0  # sum of squared deviations from the mean (Welford 1962)
        self._sums: list[tuple[int, float]] = []  # (matches, mean times matches), every `stride` matches
        self._stride = 1

    @property
    def variance(self) -> float:
        """Of the mean; NaN with fewer than two rewards."""
        n = self.matches
        return self._scatter / (n * (n - 1)) if n > 1 else float("nan")

    def add(self, reward: float) -> None:
        """Takes in the reward of one decision."""
        before = self.mean if self.matches else 0.0
        self.matches += 1
        self.mean = before + (reward - before) / self.matches
        self._scatter += (reward - before) * (reward - self.mean)
        if self.matches % self._stride == 0:
            self._sums.append((self.matches, self.mean * self.matches))
            if len(self._sums) > CURVE_POINTS:
                self._sums = self._sums[1::2]
                self._stride *= 2

    def curve(self) -> list[Point]:
        """The learning curve, ending with the last decision."""
        sums = [(0, 0.0), *self._sums]
        if sums[-1][0] != self.matches:
            sums.append((self.matches, self.mean * self.matches))
        return [Point(n, total / n, (total - before) / (n - since)) for (since, before), (n, total) in pairwise(sums)]
