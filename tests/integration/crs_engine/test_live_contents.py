"""An engine that retrieves has all live contents at its start, and what comes later soon after its announcement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.provider.v1.provider_pb2 import Content
from banditmesh.runtime import keys
from banditmesh.runtime.clock import SystemClock
from banditmesh.runtime.retrieval_options import Vectors
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import open_store
from services.importer.changes import Changes
from services.importer.embeddings import Embeddings
from services.importer.metrics import ImporterMetrics
from services.importer.redis_contents import RedisContents
from tests.support.engine_world import MESH, engine_world
from tests.support.eventually import eventually_so

RETRIEVES = MESH.replace(
    "    sources: [weather/today, weather/tomorrow, comics/new, comics/similar]\n",
    "    fallback: none\n    retrieve: {from: [comics], newest: {share: 1}}\n",
)


async def test_what_the_index_names_is_there_at_the_start_and_what_changes_is_followed(
    fresh_redis: str, tmp_path: Path
) -> None:
    async with engine_world(fresh_redis, tmp_path) as before:
        await before.hands.content("comics", "old", published_at=1_000.0)
        await before.hands.store.client.sadd(keys.known_contents("comics"), "old", "expired long ago")
    async with engine_world(fresh_redis, tmp_path, mesh=RETRIEVES) as world:
        first = await world.select("ann")
        assert (first.content.content.content_id, first.content.logic) == ("old", "newest")
        assert len(world.parts.catalog) == 1  # what Redis does not have takes no room
        # Nobody names it, and it is here; hidden, it is not proposed, and it is again when it is not hidden any more.
        live = lambda: world.parts.catalog.count_live("comics", 1_000.0)  # noqa: E731
        for hidden, n in ((False, 2), (True, 1), (False, 2)):
            await world.hands.content("comics", "new", published_at=2_000.0, hidden=hidden)
            await eventually_so(lambda n=n: live() == n)


async def test_a_vector_that_the_importer_stores_is_the_one_that_the_engine_compares_by(
    fresh_redis: str, tmp_path: Path
) -> None:
    mesh = RETRIEVES.replace("placements:", "vectors: {dimensions: 4}\nplacements:", 1)
    given = np.array([3.0, 0.0, 4.0, 0.0], np.float32)
    async with engine_world(fresh_redis, tmp_path, mesh=mesh) as world:
        redis, clock, metrics = world.hands.store, SystemClock(), ImporterMetrics(CollectorRegistry())
        embeddings = Embeddings(
            Vectors(dimensions=4), Snapshots(open_store(f"file://{tmp_path}"), None), clock, metrics
        )
        contents = RedisContents(redis, Changes(redis), clock, ttl_s=60.0, embeddings=embeddings)
        bare = Content(content_id="bare")
        await contents.save("comics", [Content(content_id="new", embedding=given), bare])
        catalog = world.parts.catalog
        rows = lambda: catalog.find(np.array([content_key("comics", each) for each in ("new", "bare")], np.uint64))  # noqa: E731
        await eventually_so(lambda: bool((rows() >= 0).all()))
        np.testing.assert_allclose(catalog.vectors(rows()), [given / 5, np.zeros(4)], atol=1e-3)
