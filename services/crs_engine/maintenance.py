"""What an engine does beside the traffic: keep the fallbacks' contents at hand, and carry counts over to the
metrics."""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import Counter

from banditmesh.runtime.clock import Clock
from services.crs_engine.engine import Engine
from services.crs_engine.kept_contents import KeptContents
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline.retrievers.newest import Newest

EVERY_S: Final = 5.0
MOST_NEW_AT_ONCE: Final = 2000
"""Contents that were announced, and that nobody has asked for yet, which are read in one round; for ``newest``."""

REPORTED_AT_ONCE: Final = 50
"""Placements whose counts are carried over before requests are let in: a millisecond of the event loop."""


class Maintenance:
    """A background task. Counts that arise in the hot path are plain integers there, and become metrics here."""

    def __init__(
        self, engine: Engine, newest: Newest, clock: Clock, metrics: EngineMetrics, kept: KeptContents | None = None
    ) -> None:
        """``kept``: where the fallbacks' contents are kept; None: nowhere."""
        self._engine = engine
        self._kept = kept
        self._newest = newest
        self._clock = clock
        self._metrics = metrics
        self._reported: dict[tuple[str, ...], int] = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.once()
            await self._clock.sleep(EVERY_S)

    async def once(self) -> None:
        """One round."""
        catalog = self._engine.pipeline.catalog
        new = catalog.announced.take_new(MOST_NEW_AT_ONCE)
        if len(new):
            await self._engine.reads.contents(new)
            if (catalog.find(new) < 0).all():  # Redis is away
                catalog.announced.put_back(new)
        await self._newest.refresh_all(self._engine.placements.values(), self._clock.now_s())
        shown = await self._engine.keep_fallbacks_warm()
        if self._kept is not None:
            await self._kept.keep(shown)
        metrics = self._metrics
        metrics.catalog_size.set(len(catalog))
        self._report(metrics.catalog_evicted, ("evicted",), catalog.evicted)
        self._report(metrics.unreadable.labels("content"), ("content",), catalog.unreadable)
        for at, (name, placement) in enumerate(self._engine.placements.items(), 1):
            if at % REPORTED_AT_ONCE == 0:
                await asyncio.sleep(0)
            self._report(metrics.large_tokens.labels(name), ("token", name), placement.large_tokens)
            self._report(metrics.unreadable.labels("profile"), ("profile", name), placement.users.unreadable)
            for featurizer in (placement.featurizer, placement.users.featurizer):
                for field, count in featurizer.dropped.items():
                    self._report(metrics.features_dropped.labels(name, field), ("dropped", name, field), count)

    def _report(self, counter: Counter, what: tuple[str, ...], total: int) -> None:
        counter.inc(total - self._reported.get(what, 0))
        self._reported[what] = total
