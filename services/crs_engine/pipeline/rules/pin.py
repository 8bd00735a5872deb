"""Certain contents stand at a position."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, RuleConstraint
from services.crs_engine.pipeline.rules import which
from services.crs_engine.pipeline.rules.base import Draw, Restraint, Sought


class Pin:
    """``rules.pin``: nothing else gets the position, and the last one that fits is kept for it until then."""

    name: ClassVar[str] = "pin"

    def __init__(self, params: rule_options.Pin, placement: Placement) -> None:
        self._params = params
        # Several positions may be pinned to the same contents, such as those of one service.
        self._same = [
            each.pin.position for each in placement.rules if each.pin is not None and each.pin.of == params.of
        ]

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        if draw.slate.group.count <= self._params.position:
            return None
        pinned = which.candidates(self._params.of, draw)
        return _Pinned(self._params, self._same, draw, pinned) if pinned.any() else None

    def sought(self, draw: Draw) -> Sought:
        """See `rules.sought`."""
        return Sought(which.candidates(self._params.of, draw), len(self._same))


class _Pinned(Restraint):
    yields = True

    def __init__(self, params: rule_options.Pin, same: list[int], draw: Draw, pinned: Mask) -> None:
        """``same``: all positions that are pinned to these contents; ``pinned``: bool[n]."""
        self._params = params
        self._same = np.array(same)
        self._draw = draw
        self._pinned = pinned

    def blocks(self, before: NDArray[np.int64], free: Mask) -> Mask | None:
        """See `Constraint.blocks`."""
        owners, position = self._draw.pool.owners, self._draw.position(before)
        left = self._pinned & free
        there = (position == self._params.position)[owners]
        wanted = (self._same >= position[:, None]).sum(axis=1)
        scarce = self._draw.counted(left) <= wanted
        kept = (scarce & (position < self._params.position) & ~np.isin(position, self._same))[owners]
        blocked: Mask = (there & ~self._pinned) | (kept & left)
        return blocked

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        what, position = self._params.of.words(), self._params.position
        if self._pinned[at]:
            return f"it is kept for position {position}, where {what} is pinned"
        return f"position {position} is pinned to {what}"
