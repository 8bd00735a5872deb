"""Self-normalised inverse propensity scores (Swaminathan and Joachims 2015, "The Self-Normalized Estimator")."""

from __future__ import annotations

from typing import ClassVar

from banditmesh.ope.estimator import Estimator, Terms
from banditmesh.ope.rows import Rows


class Snips(Estimator):
    """V = sum w_i r_i / sum w_i. Consistent, within the range of the rewards, and unmoved by adding to all of them."""

    name: ClassVar[str] = "snips"

    def _terms(self, rows: Rows) -> Terms:
        weights = rows.weights
        return weights * rows.rewards, weights
