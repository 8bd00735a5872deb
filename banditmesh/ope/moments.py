"""Means and covariance of pairs, in one pass and mergeable, without the cancellation that sums of squares suffer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Moments:
    """Of pairs (a, b), by the pairwise update of Chan, Golub and LeVeque 1979.

    Attributes:
        n: how many pairs.
        mean: float64[2].
        scatter: float64[2, 2], sums of products of the deviations from the mean.
    """

    n: int = 0
    mean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    scatter: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 2)))

    def add(self, pairs: NDArray[np.float64]) -> None:
        """Takes in float64[n, 2]."""
        if len(pairs):
            mean = pairs.mean(axis=0)
            self.merge(Moments(len(pairs), mean, (pairs - mean).T @ (pairs - mean)))

    def merge(self, other: Moments) -> None:
        """Adds the pairs that `other` has seen."""
        n = self.n + other.n
        if n:
            step = other.mean - self.mean
            self.scatter = self.scatter + other.scatter + np.outer(step, step) * (self.n * other.n / n)
            self.mean = self.mean + step * (other.n / n)
            self.n = n
