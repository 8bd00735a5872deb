"""All live contents of the services that a placement retrieves from, kept in the catalog: a model can only propose what
is here.

At the start, and whenever the change stream has lost something, the importer's index is walked; after that what the
stream announces is read at once, whether a candidate names it or not. The catalog bounds how many there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashing import content_key
from banditmesh.runtime import keys
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.known_contents import known_contents
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.redis import RedisClient
from services.crs_engine.catalog import Catalog, Fetched
from services.crs_engine.metrics import EngineMetrics

log = get_logger(__name__)

EVERY_S: Final = 0.5
RESCAN_S: Final = 600.0
"""The index is walked again after so long: what a Redis fail-over lost of the change stream heals."""
IDS_AT_ONCE: Final = 2000
READ_AT_ONCE: Final = 100
"""Some milliseconds of the event loop."""


class LiveContents:
    """A background task; does nothing when no placement retrieves."""

    def __init__(
        self, redis: RedisClient, catalog: Catalog, services: Sequence[str], clock: Clock, metrics: EngineMetrics
    ) -> None:
        self._redis = redis
        self._catalog = catalog
        self._services = tuple(services)
        self._clock = clock
        self._metrics = metrics
        self._walked: int | None = None
        """``Announcements.losses`` as it was when the index was walked last."""
        self._walk_again_s = 0.0

    async def run(self) -> None:
        """For ever."""
        if not self._services:
            await asyncio.Event().wait()
        while True:
            await self.try_once()
            await self._clock.sleep(EVERY_S)

    async def try_once(self) -> None:
        """One round; that Redis is away is logged, and nothing is forgotten by it."""
        if not self._services:
            return
        try:
            await self.once()
        except Unavailable as error:
            self._walked = None
            outages.failed("contents to retrieve from", error)
        else:
            outages.well("contents to retrieve from")

    async def once(self) -> None:
        """Walk the index if that is due; read what was announced. Raises Unavailable."""
        now_s = self._clock.monotonic_s()
        if self._walked != self._catalog.announced.losses or now_s >= self._walk_again_s:
            losses = self._catalog.announced.losses
            for service in self._services:
                await self._walk(service)
            self._walked, self._walk_again_s = losses, now_s + RESCAN_S
        while len(new := self._catalog.announced.take_new(READ_AT_ONCE)):
            await self._read(new, keep_absent=True)
        for service in self._services:
            self._metrics.live_contents.labels(service).set(self._catalog.count_live(service, self._clock.now_s()))

    async def _walk(self, service: str) -> None:
        async for ids in known_contents(self._redis, service, IDS_AT_ONCE):
            of = np.array([content_key(service, each) for each in ids], np.uint64)
            due = self._catalog.due(of, self._catalog.find(of), self._clock.monotonic_s())
            for start in range(0, len(due), READ_AT_ONCE):
                if len(self._catalog) >= self._catalog.capacity - READ_AT_ONCE:
                    log.error(
                        "more contents to retrieve from than engine.catalog_size; the others are not proposed",
                        service=service,
                        capacity=self._catalog.capacity,
                    )
                    return
                await self._read(due[start : start + READ_AT_ONCE], keep_absent=False)

    async def _read(self, contents: NDArray[np.uint64], *, keep_absent: bool) -> None:
        """Read contents into the catalog. ``keep_absent``: whether to note also what Redis does not have; the index
        may name many contents that have expired."""
        listed = contents.tolist()
        with self._catalog.announced.reading() as reading:
            values = await self._redis.read([keys.content(key) for key in listed])
            pairs = zip(listed, values, strict=True)
            found = [Fetched(key, value) for key, value in pairs if keep_absent or value is not None]
            self._catalog.put(found, self._clock.monotonic_s(), self._clock.now_s(), reading)
        self._metrics.catalog_fetched.labels("found").inc(len(values) - values.count(None))
        await asyncio.sleep(0)
