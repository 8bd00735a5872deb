"""The contents of a placement's services that are youngest, out of those that this engine knows."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import ClassVar, Final

import numpy as np

from banditmesh.bandits.batch import Candidates, Scores
from banditmesh.runtime.clock import Clock
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.pipeline.retrievers.base import Asked, Proposed, Retrieved

LOOK_EVERY_S: Final = 1.0
_NOTHING: Final = Retrieved(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.float32))
_DAY_S: Final = 86_400.0


class Newest:
    """The list of a placement is made anew by :meth:`refresh`, beside the traffic: it looks at the whole catalog (4 ms
    of 100 000 contents), so that requests are let in after each."""

    name: ClassVar[str] = "newest"

    def __init__(self, catalog: Catalog, size: int) -> None:
        """``size``: contents proposed as a fallback at most."""
        self._catalog = catalog
        self._size = size
        self._lists: dict[str, Retrieved] = {}
        self._seen_writes = -1

    async def run(self, placements: Collection[CompiledPlacement], clock: Clock) -> None:
        """Look for what is new, for ever: soon, for a young article that waits is not shown while it is worth most."""
        while True:
            await clock.sleep(LOOK_EVERY_S)
            if self._seen_writes != self._catalog.writes:
                await self.refresh_all(placements, clock.now_s())

    async def refresh_all(self, placements: Iterable[CompiledPlacement], now_s: float) -> None:
        """Look for what is new. ``now_s``: seconds since the Unix epoch."""
        self._seen_writes = self._catalog.writes  # what comes meanwhile is looked at next time
        for placement in placements:
            if self.name in placement.retrievers:
                self.refresh(placement, now_s)
                await asyncio.sleep(0)

    def refresh(self, placement: CompiledPlacement, now_s: float) -> None:
        """The same for one placement that has this retriever."""
        size = max(self._size, placement.share(self.name))
        contents, services = self._catalog.newest(placement.shown_services, size, now_s)
        age_s = now_s - self._catalog.since_s(self._catalog.find(contents))
        freshness = np.exp2(-np.clip(age_s / _DAY_S, 0, 100)).astype(np.float32)
        self._lists[placement.name] = Retrieved.of(contents, services, freshness, placement)

    def propose(self, asked: Asked) -> Proposed:
        """See `Retriever.propose`: the same to everybody. The score halves with each day of age, from 1."""
        return self.retrieve(asked.group.placement).to(asked)

    def retrieve(self, placement: CompiledPlacement) -> Retrieved:
        """See `Retriever.retrieve`."""
        return self._lists.get(placement.name, _NOTHING)

    def score(self, placement: CompiledPlacement, candidates: Candidates) -> Scores:
        """See `Retriever.score`: the age of the newest of all, less one's own, in seconds."""
        rows = self._catalog.find(candidates.contents)
        since_s = np.where(rows >= 0, self._catalog.since_s(rows), 0.0)
        youngest = since_s.max(initial=0.0)
        return Scores((since_s - youngest).astype(np.float32), np.zeros(len(rows), np.float32))
