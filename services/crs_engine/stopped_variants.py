"""Which variants are stopped, followed beside the traffic: a stop is in force here a poll after it was written.

What cannot be read changes nothing: a variant that is stopped stays so while the store is away, and one that is not
goes on. With ``BANDITMESH_KEEP_MODELS`` an engine that starts without the store has what its predecessor knew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.stops import Stopped, Stops
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.metrics import EngineMetrics

log = get_logger(__name__)

MOST_S: Final = 20.0
"""Between two looks, so that a stop is in force within a minute whatever ``engine.model_poll`` says."""


class StoppedVariants:
    """A background task."""

    def __init__(
        self, placements: Mapping[str, CompiledPlacement], stops: Stops, clock: Clock, metrics: EngineMetrics
    ) -> None:
        self._placements = {
            name: placement for name, placement in placements.items() if len(placement.config.experiment.variants) > 1
        }
        self._stops = stops
        self._clock = clock
        self._metrics = metrics
        self._known = dict.fromkeys(self._placements, Stopped())

    async def run(self, every_s: float) -> None:
        """For ever."""
        while True:
            await self.once()
            await self._clock.sleep(min(every_s, MOST_S, self._next_start_s()))

    async def once(self) -> None:
        """Look once, and let every placement assign by what is known. Never raises."""
        for name, placement in self._placements.items():
            work = outages.work(f"stopped variants of {name}")
            try:
                moved = await self._stops.moved(name, self._known[name])
                work.well()
            except MeshError as error:
                self._metrics.stops_unread.labels(name).inc()
                work.failed(error)
                moved = None
            if moved is not None:
                log.warning("stopped variants", placement=name, stopped=sorted(moved.stopped))
                self._known[name] = moved
            placement.take(self._known[name].stopped, self._clock.now_s())
            for variant in placement.config.experiment.variants:
                self._metrics.variant_stopped.labels(name, variant).set(variant in self._known[name].stopped)

    def _next_start_s(self) -> float:
        """Until the next pre-period ends."""
        now_s = self._clock.now_s()
        starts = [placement.config.experiment.starts_s - now_s for placement in self._placements.values()]
        return max(min((each for each in starts if each > 0), default=MOST_S), 0.001)
