"""Stage 2: the candidates' contents, out of the local catalog; what it does not have is read from Redis in one extra
round trip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import keys
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.redis import RedisClient
from services.crs_engine.catalog import Catalog, Fetched
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline.batch import Pool

MOST_AT_ONCE: Final = 4096
"""Contents of one read. An engine that has just started lacks those of whole batches: more of them than come within
``engine.redis_timeout`` would fail each time, and none would ever be there."""


def hydrate(pool: Pool, catalog: Catalog) -> Pool:
    """The pool with the rows of its contents. They are valid until the catalog takes something in: nothing may be
    awaited from here to the answer."""
    return replace(pool, rows=catalog.find(pool.contents))


def missing(pools: Sequence[Pool], catalog: Catalog, now_s: float) -> NDArray[np.uint64]:
    """``uint64[n]``: the content keys of hydrated pools that should be read from Redis, each once. ``now_s``: of the
    monotonic clock."""
    wanted = [catalog.due(pool.contents, pool.rows, now_s) for pool in pools if len(pool)]
    return np.unique(np.concatenate(wanted)) if wanted else np.zeros(0, np.uint64)


class Hydrator:
    """Fills the catalog."""

    def __init__(self, catalog: Catalog, redis: RedisClient, clock: Clock, metrics: EngineMetrics) -> None:
        self._catalog = catalog
        self._redis = redis
        self._clock = clock
        self._metrics = metrics

    async def fetch(self, contents: NDArray[np.uint64]) -> None:
        """Read contents (``uint64[n]``) into the catalog, found or not; beyond `MOST_AT_ONCE` they are left for the
        next requests. Raises Unavailable."""
        listed = contents[:MOST_AT_ONCE].tolist()
        with self._catalog.announced.reading() as reading:
            values = await self._redis.read([keys.content(key) for key in listed])
            self._catalog.put(
                [Fetched(key, value) for key, value in zip(listed, values, strict=True)],
                self._clock.monotonic_s(),
                self._clock.now_s(),
                reading,
            )
        absent = values.count(None)
        self._metrics.catalog_fetched.labels("found").inc(len(values) - absent)
        self._metrics.catalog_fetched.labels("absent").inc(absent)
