"""What the catalog lacks is read, and never more at once than comes in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from banditmesh.contracts.provider.v1.provider_pb2 import Content
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.metrics import new_registry
from banditmesh.runtime.packing import pack_content
from banditmesh.runtime.redis import RedisClient
from services.crs_engine.catalog import Catalog
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline.hydrate import MOST_AT_ONCE, Hydrator


class SmallRedis:
    """Too slow for more than so many values."""

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        if len(names) > MOST_AT_ONCE:
            raise Unavailable("does not answer in time", dependency="redis")
        return [pack_content("news", Content(content_id="a").SerializeToString()) for _ in names]


async def test_an_engine_that_lacks_very_many_contents_has_them_after_a_few_requests() -> None:
    clock, catalog = ManualClock(), Catalog(20_000, [])
    hydrator = Hydrator(catalog, cast(RedisClient, SmallRedis()), clock, EngineMetrics(new_registry()))
    wanted = np.arange(1, 2 * MOST_AT_ONCE + 10, dtype=np.uint64)

    for _ in range(3):
        await hydrator.fetch(catalog.due(wanted, catalog.find(wanted), clock.monotonic_s()))

    assert (catalog.find(wanted) >= 0).all()
