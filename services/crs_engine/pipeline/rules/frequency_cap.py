"""What a user was shown often enough: a content, something of a service, something of a campaign."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.user_record import SHOWN, SHOWN_LABELS
from banditmesh.runtime.user_records import shows_within
from services.crs_engine.catalog import SERVICE
from services.crs_engine.pipeline.batch import Mask, RuleConstraint
from services.crs_engine.pipeline.rules import which
from services.crs_engine.pipeline.rules.base import Barred, Draw

CONTENT = "content"


class FrequencyCap:
    """``rules.frequency_cap``: what was shown ``shown`` times on the last ``days`` days (UTC, today included)."""

    name: ClassVar[str] = "frequency_cap"

    def __init__(self, params: rule_options.FrequencyCap, placement: Placement) -> None:
        self._params = params

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        params = self._params
        section, key = (SHOWN, "content") if params.per == CONTENT else (SHOWN_LABELS, "label")
        owners, shown = draw.view.users.records.entries(section)
        often = shows_within(shown, params.days, draw.view.now_s) >= params.shown
        if not often.any():
            return None
        keys, salts = self._keys(draw), draw.view.salts
        worn = shown[key][often] ^ salts[owners[often]]
        barred = (np.isin(keys ^ salts[draw.pool.owners][:, None], worn) & (keys != 0)).any(axis=1)
        barred &= which.candidates(params.of, draw)
        return _Worn(barred, params) if barred.any() else None

    def _keys(self, draw: Draw) -> NDArray[np.uint64]:
        """``uint64[n, k]``: what each candidate is counted by."""
        if self._params.per == CONTENT:
            return draw.pool.contents[:, None]
        if self._params.per == SERVICE:
            return draw.pool.services[:, None]
        return draw.view.catalog.attributes[self._params.per].keys(draw.pool.rows)


class _Worn(Barred):
    def __init__(self, barred: Mask, params: rule_options.FrequencyCap) -> None:
        super().__init__(barred)
        self._params = params

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        params = self._params
        return (
            f"the user was shown its {params.per} {params.shown} times or more in {params.days} days, and "
            "frequency_cap allows no more"
        )
