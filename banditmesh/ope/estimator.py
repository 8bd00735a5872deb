"""What all estimators share: each is a ratio of two means over rows, and differs in the two terms alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from statistics import NormalDist
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.errors import NotMergeable
from banditmesh.ope.interval import UNKNOWN, Interval, lower, upper
from banditmesh.ope.moments import Moments
from banditmesh.ope.rows import Rows
from banditmesh.ope.support import Support
from banditmesh.ope.worst import Worst

Terms = tuple[NDArray[np.float64], NDArray[np.float64]]


class Estimator(ABC):
    """V = sum a_i / sum b_i over all rows, with (a, b) by the subclass; b = 1 makes it a plain mean.

    Attributes:
        settings: what two estimators must have in common to add up.
        support: the weights of its rows, and what they say without any estimator.
    """

    name: ClassVar[str]
    """How reports call it."""
    needs_model: ClassVar[bool] = False
    """Whether it uses a reward model, `Rows.expected` and `Rows.predicted`."""
    biased: ClassVar[bool] = False
    """Whether weights are cut or left out: then the interval is that of the estimator whose weights are not."""

    def __init__(self) -> None:
        self.settings: tuple[float, ...] = ()
        self.support = Support()
        self._moments = Moments()
        self._whole = Moments() if self.biased else self._moments
        self._worst = Worst()

    @abstractmethod
    def _terms(self, rows: Rows) -> Terms:
        """a and b of each row: float64[n] each; a is a line in the reward, b does not depend on it."""

    def _whole_terms(self, rows: Rows) -> Terms:
        """The same without the bias: the terms that the interval is made of."""
        return self._terms(rows)

    def add(self, rows: Rows) -> None:
        """Takes in rows, in batches of any size."""
        if not len(rows):
            return
        self._moments.add(np.column_stack(self._terms(rows)))
        a, b = self._whole_terms(rows)
        if self.biased:
            self._whole.add(np.column_stack((a, b)))
        at_zero = self._whole_terms(rows.rewarded(0.0))[0]
        self._worst.add(at_zero, self._whole_terms(rows.rewarded(1.0))[0] - at_zero, b)
        self.support.add(rows)

    def merge(self, other: Self) -> None:
        """Adds the rows that `other` has seen. Raises `NotMergeable` when it is another estimator or set otherwise."""
        if type(other) is not type(self) or other.settings != self.settings:
            raise NotMergeable("differs in kind or settings", field=self.name, value=other.name)
        self._moments.merge(other._moments)
        if self.biased:
            self._whole.merge(other._whole)
        self._worst.merge(other._worst)
        self.support.merge(other.support)

    @property
    def n(self) -> int:
        """How many rows it has seen."""
        return self._moments.n

    @property
    def value(self) -> float:
        """The estimated reward per decision; NaN before the first row, or when no row has any weight."""
        return _ratio(self._moments)

    def interval(self, confidence: float = 0.95, rewards: Interval | None = None) -> Interval:
        """Where the policy's expected reward lies, with at least this confidence: see `banditmesh.ope.interval`.

        Where the weights show that the log does not support the policy (`Support.shifted`), no estimator knows what is
        missing, and the answer is `Support.bounds`. The interval of an estimator with a bias is that of the same
        estimator without it, stretched to the value: so the bias lies within.

        Args:
            confidence: of the two-sided interval.
            rewards: the least and the largest reward there can be; None: as far as the log shows, see
                `Support.rewards`.
        """
        limits = self.support.limits if rewards is None else rewards
        if self.n < 2:
            return limits
        if self.support.shifted:
            found = self.support.bounds(confidence, rewards)
        else:
            found = self._own(confidence, self.support.rewards if rewards is None else rewards).within(limits)
        return found.stretched_to(Interval(self.value, self.value).within(limits).lower) if self.biased else found

    def _own(self, confidence: float, rewards: Interval) -> Interval:
        whole, value = self._whole, _ratio(self._whole)
        if np.isnan(value):
            return UNKNOWN
        gradient = _gradient(whole, value)
        return Interval(
            value + lower(whole, gradient, self._worst.low(gradient, rewards.lower), confidence),
            value + upper(whole, gradient, self._worst.high(gradient, rewards.upper), confidence),
        )

    def normal(self, confidence: float = 0.95) -> Interval:
        """The interval of the central limit theorem, by the delta method for a ratio (Cochran 1977, Theorem 2.5).

        Right for many rows of mild weights alone; it is here to be compared with.
        """
        value = self.value
        if self.n < 2 or np.isnan(value):
            return UNKNOWN
        error, _ = self._moments.along(_gradient(self._moments, value))
        half = NormalDist().inv_cdf(0.5 + confidence / 2) * error
        return Interval(value - half, value + half)


def _ratio(moments: Moments) -> float:
    a, b = moments.mean.tolist()
    return a / b if b else float("nan")


def _gradient(moments: Moments, value: float) -> NDArray[np.float64]:
    """Of a ratio with respect to its two means."""
    return np.array([1.0, -value]) / float(moments.mean[1])
