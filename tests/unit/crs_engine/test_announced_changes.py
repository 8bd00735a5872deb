"""A change that is announced while what it is about is being read is not lost, whatever is followed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from banditmesh.bandits import hashing
from banditmesh.bandits.registry import build
from banditmesh.contracts.provider.v1.provider_pb2 import Content
from banditmesh.retrieval.text import TextModel
from banditmesh.runtime import keys
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.metrics import new_registry
from banditmesh.runtime.packing import LiveVersion
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.retrieval_options import Vectors
from banditmesh.runtime.snapshots import Manifest, Pointer, Snapshot, Snapshots
from banditmesh.runtime.stops import Entry, Stopped, Stops
from banditmesh.runtime.store import open_store
from banditmesh.runtime.text_snapshots import TEXT_MODEL, VECTORS
from services.crs_engine.catalog import Catalog
from services.crs_engine.live import LiveFollower
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.models import Models
from services.crs_engine.stopped_variants import StoppedVariants
from services.importer.embeddings import LOOK_S, Embeddings
from services.importer.metrics import ImporterMetrics
from tests.support.engine_world import MESH
from tests.unit.crs_engine.test_density import SPORT, Published, filled, sums
from tests.unit.crs_engine.test_experiments import placement

SOURCE = "weather/today"


class SlowRedis:
    """Answers each read when the test says so."""

    def __init__(self) -> None:
        self.reads: asyncio.Queue[asyncio.Future[list[bytes | None]]] = asyncio.Queue()

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        answer: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        await self.reads.put(answer)
        return await answer


def pointers(version: int) -> list[bytes | None]:
    """Of a mapping and of the profiles, which follow the same stream."""
    return [LiveVersion(version, version % 2, "").pack()] * 2


def follower(redis: SlowRedis) -> LiveFollower:
    sources = [SOURCE, keys.PROFILES]
    return LiveFollower(
        cast(RedisClient, redis), sources, lambda changed: None, ManualClock(), EngineMetrics(new_registry())
    )


@pytest.mark.parametrize("source", [SOURCE, keys.PROFILES])
async def test_a_version_that_goes_live_during_a_read_of_all_pointers(source: str) -> None:
    redis = SlowRedis()
    live = follower(redis)
    rereading = asyncio.create_task(live.reread())
    first = await redis.reads.get()
    live._apply({b"kind": b"live", b"source": source.encode(), b"version": b"2", b"slot": b"0"})
    first.set_result(pointers(1))
    (await redis.reads.get()).set_result(pointers(2))
    await rereading

    assert live.current.versions[source].version == 2


async def test_a_read_that_began_before_another_and_ends_after_it() -> None:
    redis = SlowRedis()
    live = follower(redis)
    slow = asyncio.create_task(live.reread())
    old = await redis.reads.get()
    other = asyncio.create_task(live.reread())
    await asyncio.sleep(0)
    if not redis.reads.empty():  # beside each other: then the newer is through first
        redis.reads.get_nowait().set_result(pointers(2))
        await other
    old.set_result(pointers(1))
    await slow
    if not other.done():
        (await redis.reads.get()).set_result(pointers(2))
    await other

    assert {version.version for version in live.current.versions.values()} == {2}


class Interrupted(Snapshots):
    """Snapshots during whose loading something happens, once."""

    happens: Any = None

    async def load(self, placement: str, model: str, version: int) -> Snapshot:
        found = await super().load(placement, model, version)
        happens, self.happens = self.happens, None
        if happens is not None:
            await happens()
        return found


async def test_a_model_that_is_published_while_the_one_before_is_loaded(tmp_path: Path) -> None:
    snapshots = Interrupted(open_store(tmp_path.as_uri()), None)
    mesh = parse_mesh(MESH)
    (placement_name, name), model = next(iter(mesh.models().items()))
    manifest = Manifest(placement_name, name, model.policy, model.params, 0, 1, 1, {0: 1}, {0: 1})
    pointer = await snapshots.publish(manifest, build(model.policy, model.params).tensors(), after=None)

    async def another() -> None:
        await snapshots.publish(manifest, build(model.policy, model.params).tensors(), after=pointer)

    snapshots.happens = another
    models = Models.of(mesh, snapshots, ManualClock(), EngineMetrics(new_registry()))
    await models.poll()
    await models.poll()

    assert models.get(placement_name, name).version == pointer.version + 1


@pytest.mark.parametrize("store_is_away", [False, True])
def test_a_density_that_is_announced_while_the_store_is_away_or_another_is_loaded(
    tmp_path: Path, store_is_away: bool
) -> None:
    bench = filled()
    published = Published(bench, tmp_path)
    snapshots = Interrupted(open_store(tmp_path.as_uri()), None)
    published.snapshots = published.densities._snapshots = snapshots
    tensors = sums(bench, ("s3", SPORT)).full()

    async def away() -> None:
        raise Unavailable("the store is away")

    async def another() -> None:
        assert pointer is not None
        await snapshots.publish(manifest, tensors, after=pointer)

    model = next(iter(published.densities.served))
    manifest = Manifest(*model, "density", {"features": 256, "dimensions": 8}, 0, 0, 0, {}, {}, base=0)
    pointer: Pointer | None = None

    async def follow() -> int:
        nonlocal pointer
        pointer = await snapshots.publish(manifest, tensors, after=None)
        snapshots.happens = away if store_is_away else another
        await published.densities.poll()
        await published.densities.poll()
        return pointer.version

    version = asyncio.run(follow())
    assert published.served.version == version + (not store_is_away)


class SlowStops(Stops):
    """Something happens between the answer and whoever has asked."""

    happens: Any = None

    async def moved(self, placement: str, since: Stopped) -> Stopped | None:
        found = await super().moved(placement, since)
        happens, self.happens = self.happens, None
        if happens is not None:
            await happens()
        return found


async def test_a_variant_that_is_stopped_while_the_stops_are_read(tmp_path: Path) -> None:
    stops = SlowStops(open_store(tmp_path.as_uri()))
    home = placement("")

    async def another() -> None:
        await stops.stop("home", [Entry("new", "stopped", 2, "you", "slow")])

    await stops.stop("home", [Entry("old", "stopped", 1, "me", "worse")])
    stops.happens = another
    variants = StoppedVariants({"home": home}, stops, ManualClock(), EngineMetrics(new_registry()))
    await variants.once()
    await variants.once()

    assert sorted(variants._known["home"].stopped) == ["new", "old"]


async def test_a_text_model_that_is_published_while_the_one_before_is_loaded(tmp_path: Path) -> None:
    snapshots, clock = Interrupted(open_store(tmp_path.as_uri()), None), ManualClock(1000.0)
    manifest = Manifest(VECTORS, TEXT_MODEL, "text", {}, 0, 0, 0, {}, {})
    one, other = (
        TextModel(np.ones(64, np.float32), np.random.default_rng(seed).normal(size=(64, 4)).astype(np.float32))
        for seed in (1, 2)
    )
    pointer = await snapshots.publish(manifest, one.tensors(), after=None)

    async def another() -> None:
        await snapshots.publish(manifest, other.tensors(), after=pointer)

    snapshots.happens = another
    options = Vectors(dimensions=4, embedding="text")
    embeddings = Embeddings(options, snapshots, clock, ImporterMetrics(CollectorRegistry()))
    content = Content(content_id="b", title="rain")
    (before,) = await embeddings.of([content])
    await clock.advance(LOOK_S)
    (after,) = await embeddings.of([content])

    expected = other.vectors(["rain"])[0]
    np.testing.assert_allclose(np.frombuffer(after, "<f2"), expected / np.linalg.norm(expected), atol=0.01)
    assert before != after


def test_new_contents_that_could_not_be_read_are_asked_for_again() -> None:
    catalog = Catalog(1000, [], notes_new=True)
    first, second, third = (np.array([hashing.content_key("news", each)], np.uint64) for each in "abc")
    catalog.mark_changed(first)
    catalog.mark_changed(second)
    taken = catalog.announced.take_new(10)
    catalog.mark_changed(third)
    catalog.announced.put_back(taken)

    assert catalog.announced.take_new(10).tolist() == [int(third[0]), int(second[0]), int(first[0])]
