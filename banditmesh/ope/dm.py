"""The direct method: what the reward model expects of the policy (Dudík, Langford, Li 2011, section 2)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from banditmesh.ope.estimator import Estimator, Terms
from banditmesh.ope.rows import Rows


class Dm(Estimator):
    """V = 1/n sum_i sum_a pi(a | x_i) q(x_i, a). No weights, so little variance; all the bias of the model q.

    The intervals say how V varies with the decisions, not how wrong the model may be.
    """

    name: ClassVar[str] = "dm"

    def _terms(self, rows: Rows) -> Terms:
        return rows.expected, np.ones(len(rows))
