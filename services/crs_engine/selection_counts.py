"""What this engine has selected and what stayed empty, by variant: written to the store beside the traffic."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.outages import outages
from banditmesh.runtime.selections import BUCKETS, Counts, buckets_of, write
from banditmesh.runtime.store import Store
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.experiments import hashed
from services.crs_engine.metrics import EngineMetrics

EVERY_S: Final = 30.0
_PLANS: Final = 4
"""Of a placement that are kept, the newest ones."""


class SelectionCounts:
    """A background task, and what the hot path adds to. Nothing is counted for a placement of one variant."""

    def __init__(self, store: Store, clock: Clock, metrics: EngineMetrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._process = uuid.uuid4().hex
        self._counted: dict[str, dict[str, tuple[tuple[str, ...], Counts]]] = {}
        self._news = False

    def add(
        self, placement: CompiledPlacement, users: Sequence[str], variants: NDArray[np.int64], empty: NDArray[np.bool_]
    ) -> None:
        """Count selections: the user, the variant's position, and whether nothing was shown, of each."""
        names = placement.assignment.names
        if len(names) < 2 or not placement.plan:
            return
        plans = self._counted.setdefault(placement.name, {})
        if placement.plan not in plans:
            plans[placement.plan] = (names, np.zeros((2, len(names), BUCKETS)))
            for old in list(plans)[:-_PLANS]:
                del plans[old]
        _, counts = plans[placement.plan]
        buckets = buckets_of(hashed(users))
        np.add.at(counts[0], (variants, buckets), 1.0)
        if empty.any():
            np.add.at(counts[1], (variants[empty], buckets[empty]), 1.0)
        self._news = True

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Write what was counted, if there is news. Never raises: the next time writes it all."""
        if not self._news:
            return
        self._news = False
        try:
            await write(self._store, self._process, self._clock.now_s(), self._counted)
        except MeshError as error:
            self._news = True
            self._metrics.selections_unwritten.inc()
            outages.failed("counts of selections", error)
        else:
            outages.well("counts of selections")
