"""Inverse propensity scores (Horvitz and Thompson 1952; for policies Dudík, Langford, Li 2011, section 2)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from banditmesh.ope.estimator import Estimator, Terms
from banditmesh.ope.rows import Rows


class Ips(Estimator):
    """V = 1/n sum w_i r_i with w = pi / p. Unbiased where p > 0 wherever pi > 0; its variance grows with w."""

    name: ClassVar[str] = "ips"

    def _terms(self, rows: Rows) -> Terms:
        return rows.weights * rows.rewards, np.ones(len(rows))
