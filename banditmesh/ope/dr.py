"""The doubly robust estimator: the direct method, its residuals corrected by IPS (Dudík, Langford, Li 2011)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from banditmesh.ope.estimator import Estimator, Terms
from banditmesh.ope.rows import Floats, Rows


class Dr(Estimator):
    """V = 1/n sum_i [sum_a pi(a | x_i) q(x_i, a) + w_i (r_i - q(x_i, a_i))].

    Unbiased when the propensities are right (and q was not learned from the row itself), whatever the model; the better
    the model, the less of the weights' variance is left.
    """

    name: ClassVar[str] = "dr"
    needs_model: ClassVar[bool] = True

    def _terms(self, rows: Rows) -> Terms:
        return doubly_robust(rows, rows.weights), np.ones(len(rows))


def doubly_robust(rows: Rows, weights: Floats) -> Floats:
    """float64[n]: the model's expectation, its residuals corrected with these weights."""
    return rows.expected + weights * (rows.rewards - rows.predicted)
