"""Scores of certain contents are raised, or lowered, before the exploration looks at them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import rule_options
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import RuleConstraint
from services.crs_engine.pipeline.rules import which
from services.crs_engine.pipeline.rules.base import Draw, Restraint


class Boost:
    """``rules.boost``: the score rises by ``by``, or by ``share`` of its absolute value."""

    name: ClassVar[str] = "boost"
    sign: ClassVar[float] = 1.0

    def __init__(self, params: rule_options.Boost | rule_options.Bury, placement: Placement) -> None:
        self._params = params

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        meant = which.candidates(self._params.of, draw)
        if not meant.any():
            return None
        how = f"{self.name} of {self._params.of.words()}"
        if self._params.by is not None:
            return _Moved(np.where(meant, self.sign * self._params.by, 0.0), None, how)
        shares = np.where(meant, self.sign * (self._params.share or 0.0), 0.0)
        by = shares * np.abs(draw.scores.mean.astype(np.float64))
        return _Moved(np.where(np.isfinite(by), by, 0.0), shares, how)


class Bury(Boost):
    """``rules.bury``: the score falls."""

    name: ClassVar[str] = "bury"
    sign: ClassVar[float] = -1.0


class _Moved(Restraint):
    def __init__(self, by: NDArray[np.float64], shares: NDArray[np.float64] | None, how: str) -> None:
        """``by``, ``shares``: float64[n]."""
        self._by = by
        self.shares = shares
        self._how = how

    def shifts(self, before: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """See `Constraint.shifts`."""
        return self._by

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        return self._how
