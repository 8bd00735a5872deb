"""The worst row that a log could have held, by what it did hold: its weights with the best or the worst reward."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from banditmesh.ope.moments import Floats

_BINS = 80  # powers of two of the slope, from 2^-40 to 2^39


def _full(value: float) -> Floats:
    return np.full(_BINS, value)


@dataclass
class Worst:
    """Rows as lines: a = intercept + slope · reward, whose b is given. Kept are the extremes for each power of two of
    the slope, so the range of the rewards need not be known before the end, and neither order nor batches matter.

    Attributes:
        least, most: float64[80], extremes of the intercepts; inf and -inf where no row was.
        slopes: float64[80], the largest slope.
        bs: float64[80], the b that came with it.
    """

    least: Floats = field(default_factory=lambda: _full(np.inf))
    most: Floats = field(default_factory=lambda: _full(-np.inf))
    slopes: Floats = field(default_factory=lambda: _full(0.0))
    bs: Floats = field(default_factory=lambda: _full(0.0))

    def add(self, intercepts: Floats, slopes: Floats, bs: Floats) -> None:
        """Takes in float64[n] each; slopes and bs are at least 0."""
        bins: NDArray[np.int64] = np.clip(np.frexp(slopes)[1] + _BINS // 2, 0, _BINS - 1).astype(np.int64)
        np.minimum.at(self.least, bins, intercepts)
        np.maximum.at(self.most, bins, intercepts)
        np.maximum.at(self.slopes, bins, slopes)
        np.maximum.at(self.bs, bins, bs)

    def merge(self, other: Worst) -> None:
        """Adds the rows that `other` has seen."""
        self.least, self.most = np.minimum(self.least, other.least), np.maximum(self.most, other.most)
        self.slopes, self.bs = np.maximum(self.slopes, other.slopes), np.maximum(self.bs, other.bs)

    def low(self, gradient: Floats, reward: float) -> tuple[float, float]:
        """The pair (a, b) of a row with this reward that has the smallest gradient · (a, b), roughly."""
        return self._extreme(self.least, gradient, reward)

    def high(self, gradient: Floats, reward: float) -> tuple[float, float]:
        """The pair (a, b) of a row with this reward that has the largest gradient · (a, b), roughly."""
        return self._extreme(self.most, -gradient, reward)

    def _extreme(self, intercepts: Floats, gradient: Floats, reward: float) -> tuple[float, float]:
        there = np.isfinite(intercepts)
        if not there.any():
            return 0.0, 0.0
        pairs = np.column_stack([intercepts + self.slopes * reward, self.bs])[there]
        a, b = pairs[int(np.argmin(pairs @ gradient))].tolist()
        return a, b
