"""The more robust doubly robust estimator (Farajtabar, Chow, Ghavamzadeh 2018): DR with a reward model made for it.

A model that predicts well on average may predict badly where the weights are large. So the rows count in the fit as
they do in DR's variance, by `importance`, and the model is the one that leaves DR least of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from banditmesh.ope.dr import Dr
from banditmesh.ope.rows import Floats, Rows

_CAUTION = 10.0
"""So many rows of mean importance say that the reward model is right as it is."""


class Mrdr(Dr):
    """DR to the letter, for rows whose q comes from a model that was fitted with `importance` as weights."""

    name: ClassVar[str] = "mrdr"


def importance(rows: Rows) -> Floats:
    """float64[n]: how much a row counts in the fit, pi (1 - p) / p² of what was shown (their Equation 12)."""
    p = np.maximum(rows.propensities, rows.targets / 1e9)
    return rows.targets * (1.0 - p) / p / p


@dataclass
class Recalibration:
    """q' = alpha + beta q, by least squares weighted with `importance`: a fit that is sums alone, on any reward model.

    Rows must be recalibrated by the fit of others, so that no row fits the q that it is compared with.

    Attributes:
        n: rows.
        sums: float64[5], of importance times 1, q, q², r, q r.
    """

    n: int = 0
    sums: Floats = field(default_factory=lambda: np.zeros(5))

    def add(self, rows: Rows) -> None:
        """Takes in rows."""
        q, r = rows.predicted, rows.rewards
        self.sums += importance(rows) @ np.column_stack((np.ones(len(rows)), q, q * q, r, q * r))
        self.n += len(rows)

    def merge(self, other: Recalibration) -> None:
        """Adds the rows that `other` has seen."""
        self.n, self.sums = self.n + other.n, self.sums + other.sums

    @property
    def line(self) -> tuple[float, float]:
        """Alpha and beta; 0 and 1 before there is anything to fit."""
        weight, q, squares, r, products = self.sums.tolist()
        if not weight > 0:
            return 0.0, 1.0
        mean_q, mean_r = q / weight, r / weight
        spread = max(squares / weight - mean_q**2, 0.0)
        together = products / weight - mean_q * mean_r
        prior = _CAUTION / (self.n + _CAUTION) * max(mean_q**2, spread, np.finfo(float).tiny)
        beta = (together + prior) / (spread + prior)  # pulled to 1
        alpha = (mean_r - beta * mean_q) * self.n / (self.n + _CAUTION)
        return alpha, beta

    def applied(self, rows: Rows) -> Rows:
        """The rows with q' for q."""
        alpha, beta = self.line
        return replace(rows, expected=alpha + beta * rows.expected, predicted=alpha + beta * rows.predicted)
