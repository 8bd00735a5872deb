"""Contents that share a value of an attribute do not stand close together."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, RuleConstraint
from services.crs_engine.pipeline.rules.base import Draw, Restraint


class Spread:
    """``rules.spread``: the ``apart - 1`` contents before a position share no value with the one that gets it."""

    name: ClassVar[str] = "spread"

    def __init__(self, params: rule_options.Spread, placement: Placement) -> None:
        self._params = params

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        return _Apart(self._params, draw) if draw.slate.group.count > 1 else None


class _Apart(Restraint):
    yields = True

    def __init__(self, params: rule_options.Spread, draw: Draw) -> None:
        self._params = params
        self._draw = draw
        self._keys = draw.view.catalog.attributes[params.attribute].keys(draw.items.rows)

    def blocks(self, before: NDArray[np.int64], free: Mask) -> Mask | None:
        """See `Constraint.blocks`."""
        listed, position = self._draw.listed(before), self._draw.position(before)
        own, owners = self._keys[: len(free)], self._draw.pool.owners
        users = np.arange(len(position))
        blocked = np.zeros(len(free), np.bool_)
        for back in range(1, self._params.apart):  # positions, not candidates
            at = np.minimum(position - back, listed.shape[1] - 1)
            neighbours = np.where(at >= 0, listed[users, np.maximum(at, 0)], -1)
            there = neighbours >= 0
            theirs = np.where(there[:, None], self._keys[neighbours], 0)[owners]
            blocked |= ((own[:, :, None] == theirs[:, None, :]) & (own != 0)[:, :, None]).any(axis=(1, 2))
        return blocked

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        close, name = self._params.apart - 1, self._params.attribute
        return f"one of the {close} before it has the same {name}, and spread keeps them {close + 1} apart"
