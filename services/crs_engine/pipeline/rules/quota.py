"""At least so many of certain contents among the first positions of a list."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, RuleConstraint
from services.crs_engine.pipeline.rules import which
from services.crs_engine.pipeline.rules.base import Draw, Restraint, Sought


class Quota:
    """``rules.quota``: from the position on at which all that is left of the first ones is owed, nothing else is drawn.

    Until then the draw is free, so a quota costs no more than it must.
    """

    name: ClassVar[str] = "quota"

    def __init__(self, params: rule_options.Quota, placement: Placement) -> None:
        self._params = params
        self._others = [each.quota for each in placement.rules if each.quota is not None]
        self._pins = [each.pin.position for each in placement.rules if each.pin is not None]

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        count = draw.slate.group.count
        owing = [(which.which(each.of, draw), each.owed(count)) for each in self._others_within()]
        if not self._params.owed(count):
            return None
        words = f"{self._params.at_least} {self._params.of.words()} of the first {self._params.first}"
        return Floor(draw, self._params.first, owing, self._pins, f"quota: at least {words}")

    def sought(self, draw: Draw) -> Sought:
        """See `rules.sought`."""
        return Sought(which.candidates(self._params.of, draw), self._params.at_least)

    def _others_within(self) -> list[rule_options.Quota]:
        """This quota, and those that are due no later: together they can be all that is left."""
        return [each for each in self._others if each.first <= self._params.first]


class Floor(Restraint):
    """Holds the positions that are owed."""

    yields = True

    def __init__(self, draw: Draw, first: int, owing: list[tuple[Mask, int]], pinned: list[int], what: str) -> None:
        """``owing``: bool[n_items], which contents count, and how many of them are owed, for each quota."""
        self._draw = draw
        self._owing = owing
        self._what = what
        self._first = min(first, draw.slate.group.count)
        self._pinned = np.array([each for each in sorted(set(pinned)) if each < self._first], np.int64)

    def blocks(self, before: NDArray[np.int64], free: Mask) -> Mask | None:
        """See `Constraint.blocks`."""
        draw = self._draw
        position = draw.position(before)
        # Positions that are left and that no pin will take; fewer, where there are not as many candidates.
        later_pins = (self._pinned > position[:, None]).sum(axis=1)
        left = np.minimum(self._first - position - later_pins, draw.counted(free))
        owed = np.zeros(len(position), np.int64)
        wanted = np.zeros(len(free), np.bool_)
        listed = draw.listed(before)[:, : self._first]
        for counts, at_least in self._owing:
            have = (counts[listed] & (listed >= 0)).sum(axis=1)
            own = counts[: len(free)] & free
            missing = np.clip(at_least - have, 0, draw.counted(own))
            owed += missing
            wanted |= own & (missing > 0)[draw.pool.owners]
        due = (owed > 0) & (owed >= left) & (position < self._first)
        return due[draw.pool.owners] & ~wanted if due.any() else None

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        return f"{self._what}; the positions that are left are owed to it"
