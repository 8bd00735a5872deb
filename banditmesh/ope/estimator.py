"""What all estimators share: each is a ratio of two means over rows, and differs in the two terms alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from statistics import NormalDist
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.errors import NotMergeable
from banditmesh.ope.bootstrap import PoissonBootstrap
from banditmesh.ope.moments import Moments
from banditmesh.ope.rows import Rows

Terms = tuple[NDArray[np.float64], NDArray[np.float64]]


class Interval(NamedTuple):
    """Bounds on the expected reward per decision; NaN while there are too few rows to say."""

    lower: float
    upper: float


class Estimator(ABC):
    """V = sum a_i / sum b_i over all rows, with (a, b) by the subclass; b = 1 makes it a plain mean.

    Args:
        replicates: of the bootstrap; 0 saves its time.
        seed: of the bootstrap.
    """

    name: ClassVar[str]

    def __init__(self, *, replicates: int = 200, seed: int = 0) -> None:
        self._settings: tuple[float, ...] = (replicates, seed)
        self._moments = Moments()
        self._bootstrap = PoissonBootstrap(replicates, seed)

    @abstractmethod
    def _terms(self, rows: Rows) -> Terms:
        """a and b of each row: float64[n] each."""

    def add(self, rows: Rows) -> None:
        """Takes in rows, in batches of any size."""
        pairs = np.column_stack(self._terms(rows))
        self._moments.add(pairs)
        self._bootstrap.add(rows.keys, pairs)

    def merge(self, other: Self) -> None:
        """Adds the rows that `other` has seen. Raises `NotMergeable` when it is another estimator or set otherwise."""
        if type(other) is not type(self) or other._settings != self._settings:
            raise NotMergeable("differs in kind or settings", field=self.name, value=other.name)
        self._moments.merge(other._moments)
        self._bootstrap.merge(other._bootstrap)

    @property
    def n(self) -> int:
        """How many rows it has seen."""
        return self._moments.n

    @property
    def value(self) -> float:
        """The estimated reward per decision; NaN before the first row, or when no row has any weight."""
        a, b = self._moments.mean.tolist()
        return a / b if b else float("nan")

    def normal(self, confidence: float = 0.95) -> Interval:
        """The interval of the central limit theorem, by the delta method for a ratio (Cochran 1977, Theorem 2.5).

        Variance of V: sum (a_i - V b_i)^2 / (n (n - 1) mean(b)^2).
        """
        n, value = self.n, self.value
        if n < 2 or np.isnan(value):
            return Interval(float("nan"), float("nan"))
        gradient = np.array([1.0, -value])
        variance = gradient @ self._moments.scatter @ gradient / (n * (n - 1) * self._moments.mean[1] ** 2)
        half = NormalDist().inv_cdf(0.5 + confidence / 2) * float(np.sqrt(max(variance, 0.0)))
        return Interval(value - half, value + half)

    def bootstrap(self, confidence: float = 0.95) -> Interval:
        """The percentile interval of the bootstrap's replicates (Efron 1979), for small or skewed samples."""
        sums = self._bootstrap.sums[self._bootstrap.sums[:, 1] > 0]
        if self.n < 2 or not len(sums):
            return Interval(float("nan"), float("nan"))
        lower, upper = np.quantile(sums[:, 0] / sums[:, 1], [0.5 - confidence / 2, 0.5 + confidence / 2]).tolist()
        return Interval(lower, upper)
