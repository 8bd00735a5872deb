"""The direct method: what the reward model expects of the policy (Dudík, Langford, Li 2011, section 2)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from banditmesh.ope.dr import doubly_robust
from banditmesh.ope.estimator import Estimator, Terms
from banditmesh.ope.rows import Rows


class Dm(Estimator):
    """V = 1/n sum_i sum_a pi(a | x_i) q(x_i, a). No weights, so little variance; all the bias of the model q.

    How wrong the model is shows in the residuals alone: the interval is that of DR, which corrects by them, and V.
    """

    name: ClassVar[str] = "dm"
    needs_model: ClassVar[bool] = True
    biased: ClassVar[bool] = True

    def _terms(self, rows: Rows) -> Terms:
        return rows.expected, np.ones(len(rows))

    def _whole_terms(self, rows: Rows) -> Terms:
        return doubly_robust(rows, rows.weights), np.ones(len(rows))
