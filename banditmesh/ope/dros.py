"""DRos: doubly robust with weights that are shrunk the more, the larger they are (Su, Dimakopoulou, Krishnamurthy,
Dudík 2020, "Doubly robust off-policy evaluation with shrinkage", optimistic shrinkage, their Equation 7).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from banditmesh.bandits.errors import InvalidParams
from banditmesh.ope.dr import doubly_robust
from banditmesh.ope.estimator import Estimator, Terms
from banditmesh.ope.rows import Rows


class Dros(Estimator):
    """As DR, with lambda w / (w² + lambda) for w: at most sqrt(lambda) / 2, and hardly changed while w is small.

    The interval is that of DR, which has no bias, and V.

    Args:
        shrinkage: lambda; 0 is the direct method, infinitely much is DR.
    """

    name: ClassVar[str] = "dros"
    needs_model: ClassVar[bool] = True
    biased: ClassVar[bool] = True

    def __init__(self, *, shrinkage: float = 400.0) -> None:
        if not shrinkage >= 0:
            raise InvalidParams(f"must be at least 0, got {shrinkage}", field="dros.shrinkage", value=shrinkage)
        super().__init__()
        self._shrinkage = shrinkage
        self.settings = (shrinkage,)

    def _terms(self, rows: Rows) -> Terms:
        weights = rows.weights
        if self._shrinkage < np.inf:
            # tiny: nothing is divided by 0 where both lambda and w are 0
            weights = self._shrinkage * weights / np.maximum(weights**2 + self._shrinkage, np.finfo(float).tiny)
        return doubly_robust(rows, weights), np.ones(len(rows))

    def _whole_terms(self, rows: Rows) -> Terms:
        return doubly_robust(rows, rows.weights), np.ones(len(rows))
