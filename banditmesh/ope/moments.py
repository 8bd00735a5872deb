"""Means, covariance and skewness of pairs, in one pass and mergeable, without the cancellation of power sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass
class Moments:
    """Of pairs (a, b), by the pairwise updates of Chan, Golub, LeVeque 1979 and, for the third order, Pébay 2008.

    Attributes:
        n: how many pairs.
        mean: float64[2]; `wide` has more numbers than two in the place of a pair.
        scatter: float64[2, 2], sums of products of the deviations from the mean.
        third: float64[2, 2, 2], sums of triple products of the deviations from the mean.
    """

    n: int = 0
    mean: Floats = field(default_factory=lambda: np.zeros(2))
    scatter: Floats = field(default_factory=lambda: np.zeros((2, 2)))
    third: Floats = field(default_factory=lambda: np.zeros((2, 2, 2)))

    @classmethod
    def wide(cls, width: int) -> Self:
        """Of so many numbers together."""
        return cls(0, np.zeros(width), np.zeros((width, width)), np.zeros((width, width, width)))

    def add(self, pairs: Floats) -> None:
        """Takes in float64[n, 2]."""
        if len(pairs):
            mean = pairs.mean(axis=0)
            off = pairs - mean
            products = off[:, :, None] * off[:, None, :]
            self.merge(Moments(len(pairs), mean, products.sum(axis=0), np.tensordot(products, off, (0, 0))))

    def merge(self, other: Moments) -> None:
        """Adds the pairs that `other` has seen."""
        n = self.n + other.n
        if n:
            step = other.mean - self.mean
            square = np.outer(step, step)
            mixed = (other.scatter * self.n - self.scatter * other.n) / n
            crossed = mixed[:, :, None] * step
            self.third = (
                self.third
                + other.third
                + square[:, :, None] * step * (self.n * other.n * (self.n - other.n) / n**2)
                + (crossed + crossed.transpose(0, 2, 1) + crossed.transpose(2, 1, 0))
            )
            self.scatter = self.scatter + other.scatter + square * (self.n * other.n / n)
            self.mean = self.mean + step * (other.n / n)
            self.n = n

    def beside(self, pair: tuple[float, ...]) -> Moments:
        """The same with one more pair."""
        found = Moments(1, np.array(pair), np.zeros_like(self.scatter), np.zeros_like(self.third))
        found.merge(self)
        return found

    def along(self, gradient: Floats) -> tuple[float, float]:
        """Standard error of the mean of gradient · (a, b), and that combination's skewness divided by sqrt(n)."""
        n = self.n
        square = max(float(gradient @ self.scatter @ gradient), 0.0)
        cube = float(np.einsum("ijk,i,j,k", self.third, gradient, gradient, gradient))
        # skewness = (cube / n) / (square / n)^1.5, so its quotient by sqrt(n) is cube / square^1.5
        return (square / (n * (n - 1))) ** 0.5, cube / square**1.5 if square > 0 else 0.0
