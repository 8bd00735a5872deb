"""SWITCH: doubly robust where the weight is small, the direct method where it is large (Wang, Agarwal, Dudík 2017)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from banditmesh.bandits.errors import InvalidParams
from banditmesh.ope.dr import doubly_robust
from banditmesh.ope.estimator import Estimator, Terms
from banditmesh.ope.rows import Rows


class Switch(Estimator):
    """V = 1/n sum_i [sum_a pi(a | x_i) q(x_i, a) + 1{w_i <= tau} w_i (r_i - q(x_i, a_i))], as `obp` has it.

    The interval is that of DR, which has no bias, and V.

    Args:
        tau: the largest weight that counts.
    """

    name: ClassVar[str] = "switch"
    needs_model: ClassVar[bool] = True
    biased: ClassVar[bool] = True

    def __init__(self, *, tau: float = 10.0) -> None:
        if not tau >= 0:
            raise InvalidParams(f"must be at least 0, got {tau}", field="switch.tau", value=tau)
        super().__init__()
        self._tau = tau
        self.settings = (tau,)

    def _terms(self, rows: Rows) -> Terms:
        weights = rows.weights
        return doubly_robust(rows, np.where(weights <= self._tau, weights, 0.0)), np.ones(len(rows))

    def _whole_terms(self, rows: Rows) -> Terms:
        return doubly_robust(rows, rows.weights), np.ones(len(rows))
