"""No more than so many contents of one service on a list."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import RuleConstraint
from services.crs_engine.pipeline.rules.base import Draw
from services.crs_engine.pipeline.rules.tally import Cap


class CapPerService:
    """``rules.cap_per_service``: ``most`` contents of each service, whoever proposes them."""

    name: ClassVar[str] = "cap_per_service"

    def __init__(self, params: rule_options.CapPerService, placement: Placement) -> None:
        self._most = params.most

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        return None if draw.slate.group.count <= self._most else _ServiceCap(self._most, draw)


class _ServiceCap(Cap):
    def __init__(self, most: int, draw: Draw) -> None:
        self._names = draw.view.placement.services
        super().__init__(draw, draw.items.services[:, None], len(self._names), most)

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        service, there = self.full(at, before)
        return f"the list has {there} of {self._names[service]} before it, and cap_per_service allows {self._most}"
