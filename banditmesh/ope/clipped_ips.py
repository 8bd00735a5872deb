"""IPS with weights clipped from above (Ionides 2008, "Truncated Importance Sampling"; Bottou et al. 2013)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from banditmesh.bandits.errors import InvalidParams
from banditmesh.ope.estimator import Estimator, Terms
from banditmesh.ope.rows import Rows


class ClippedIps(Estimator):
    """V = 1/n sum min(w_i, clip) r_i: a bias (downwards for rewards >= 0) bought for a bounded variance.

    The interval is that of IPS, which has no bias, and V.

    Args:
        clip: the largest weight.
    """

    name: ClassVar[str] = "clipped_ips"
    biased: ClassVar[bool] = True

    def __init__(self, *, clip: float = 10.0) -> None:
        if not clip > 0:
            raise InvalidParams(f"must be above 0, got {clip}", field="clipped_ips.clip", value=clip)
        super().__init__()
        self._clip = clip
        self.settings = (clip,)

    def _terms(self, rows: Rows) -> Terms:
        return np.minimum(rows.weights, self._clip) * rows.rewards, np.ones(len(rows))

    def _whole_terms(self, rows: Rows) -> Terms:
        return rows.weights * rows.rewards, np.ones(len(rows))
