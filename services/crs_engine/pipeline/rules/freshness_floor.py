"""Contents must not be too old, or so many of the first ones must not."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.durations import written
from banditmesh.runtime import rule_options
from banditmesh.runtime.clock import utc
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, RuleConstraint
from services.crs_engine.pipeline.rules import which
from services.crs_engine.pipeline.rules.base import Barred, Draw, Sought
from services.crs_engine.pipeline.rules.quota import Floor


class FreshnessFloor:
    """``rules.freshness_floor``: older ones are barred, or with ``at_least`` a quota of young ones is held."""

    name: ClassVar[str] = "freshness_floor"

    def __init__(self, params: rule_options.FreshnessFloor, placement: Placement) -> None:
        self._params = params
        self._pins = [each.pin.position for each in placement.rules if each.pin is not None]

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """See `Rule.constraint`."""
        params, young = self._params, self._young(draw)
        if params.at_least is None or params.first is None:
            barred = (~young & which.which(params.of, draw))[: len(draw.pool)]
            return _Stale(barred, params.younger_than, draw) if barred.any() else None
        owed = params.owed(draw.slate.group.count)
        if not owed:
            return None
        what = f"freshness_floor: {params.at_least} of the first {params.first} younger than "
        counts = young & which.which(params.of, draw)
        return Floor(draw, params.first, [(counts, owed)], self._pins, what + written(params.younger_than))

    def sought(self, draw: Draw) -> Sought:
        """See `rules.sought`."""
        meant = self._young(draw) & which.which(self._params.of, draw)
        return Sought(meant[: len(draw.pool)], self._params.at_least or 0)

    def _young(self, draw: Draw) -> Mask:
        """``bool[n_items]``."""
        since_s = draw.view.catalog.since_s(draw.items.rows)
        return np.asarray(since_s >= draw.view.now_s - self._params.younger_than)


class _Stale(Barred):
    def __init__(self, barred: Mask, younger_than_s: float, draw: Draw) -> None:
        super().__init__(barred)
        self._younger_than = written(younger_than_s)
        self._draw = draw

    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""
        since_s = float(self._draw.view.catalog.since_s(self._draw.pool.rows[at : at + 1])[0])
        return f"it is from {utc(since_s)}, and freshness_floor wants it younger than {self._younger_than}"
