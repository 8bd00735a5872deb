"""When snapshots are published, and what happens when the store is away or holds something broken."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.snapshots import Superseded
from banditmesh.runtime.store import Store, StoredObject, open_store
from tests.support.examples import traffic
from tests.unit.learner.parts import LINUCB, Rig, Topic, rig

FOLDER = f"models/home/{LINUCB.model}"


class AwayStore:
    """A store that can be away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, key: str) -> StoredObject:
        self._answer()
        return await self._store.get(key)

    async def put_new(self, key: str, body: bytes) -> str:
        self._answer()
        return await self._store.put_new(key, body)

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("the store is away")


@pytest.fixture
def store(tmp_path: Path) -> AwayStore:
    return AwayStore(open_store((tmp_path / "store").as_uri()))


def topic(n: int = 60) -> Topic:
    made = Topic(2)
    made.append(traffic(n, partitions=2, seed=1))
    return made


async def versions(one: Rig) -> list[int]:
    return await one.snapshots.versions("home", LINUCB.model)


async def test_nothing_new_is_nothing_to_publish(store: AwayStore) -> None:
    async with rig(topic(), store) as one:
        await one.until(60)
        assert await one.publisher.publish_all()
        assert await one.publisher.publish_all()
        assert await versions(one) == [1]


async def test_snapshots_come_at_their_interval(store: AwayStore) -> None:
    async with rig(topic(), store) as one, asyncio.TaskGroup() as tasks:
        await one.until(60)
        task = tasks.create_task(one.publisher.run(30.0))
        await one.clock.wait_for_sleepers()
        await one.clock.advance(29)
        assert await versions(one) == []
        await one.clock.advance(1)
        await one.clock.wait_for_sleepers()
        assert await versions(one) == [1]
        task.cancel()


async def test_while_the_store_is_away_learning_goes_on_and_publishing_is_tried_again(store: AwayStore) -> None:
    source = topic()
    async with rig(source, store) as one, asyncio.TaskGroup() as tasks:
        store.away = True
        task = tasks.create_task(one.publisher.run(30.0))
        await one.clock.wait_for_sleepers()
        await one.until(60)
        await one.clock.advance(30)
        await one.clock.wait_for_sleepers()
        assert one.metric("publish_failures_total", reason="unavailable") == 2  # both models
        store.away = False
        await one.clock.advance(1)
        await one.clock.wait_for_sleepers()
        assert await versions(one) == [1]
        task.cancel()


async def test_a_start_waits_for_the_store(store: AwayStore) -> None:
    async with rig(topic(), store, run=False) as one:
        store.away = True
        one.publisher.restored.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one.publisher.restore())
            await one.clock.wait_for_sleepers()
            assert not one.publisher.restored.is_set()
            store.away = False
            await one.clock.advance(1)
        assert one.publisher.restored.is_set()


async def test_a_start_waits_for_a_cache_that_cannot_be_written(store: AwayStore, tmp_path: Path) -> None:
    async with rig(topic(), store) as one:
        await one.until(60)
        await one.publisher.publish_all()

    cache = tmp_path / "cache"
    async with rig(Topic(2), store, run=False, cache=cache) as two, asyncio.TaskGroup() as tasks:
        for folder in cache.iterdir():
            shutil.rmtree(folder)
            folder.touch()  # where it stands nobody makes a folder
        two.publisher.restored.clear()
        tasks.create_task(two.publisher.restore())
        await two.clock.wait_for_sleepers()
        assert not two.publisher.restored.is_set()
        for file in cache.iterdir():
            file.unlink()
        await two.clock.advance(1)
        await two.publisher.restored.wait()
        assert two.linucb.examples == 60


async def test_only_the_newest_versions_stay(store: AwayStore) -> None:
    source = Topic(2)
    records = traffic(60, partitions=2, seed=1)
    async with rig(source, store, keep=2) as one:
        for n in (20, 40, len(records)):
            source.append(records[len(source.records[0]) + len(source.records[1]) : n])
            before = one.linucb.examples
            await one.until(before + 1)
            await one.publisher.publish_all()
        assert await versions(one) == [2, 3]


async def test_rollbacks_push_no_genuine_version_out(store: AwayStore) -> None:
    source = Topic(2)
    records = traffic(60, partitions=2, seed=1)
    async with rig(source, store, keep=2) as one:
        for n in (20, 40, len(records)):
            source.append(records[len(source.records[0]) + len(source.records[1]) : n])
            await one.until(one.linucb.examples + 1)
            await one.publisher.publish_all()
        for to in (2, 3, 2, 3, 2):
            await one.rollback(one.linucb, to, relearn=False)

        assert await versions(one) == [2, 3, 7, 8]  # 8 repeats 2 and was rolled back from 7


async def test_a_broken_snapshot_is_passed_over_for_the_one_before(store: AwayStore) -> None:
    source = Topic(2)
    records = traffic(60, partitions=2, seed=1)
    source.append(records[:30])
    async with rig(source, store) as one:
        await one.until(1)
        await one.publisher.publish_all()
        first = one.linucb.examples
        source.append(records[30:])
        await one.until(60)
        await one.publisher.publish_all()
    await store.put(f"{FOLDER}/00000002/tensors.safetensors", b"rubbish")
    async with rig(source, store) as one:
        assert one.metric("bad_snapshots_total", reason="sha256") == 1
        assert one.publisher.published[LINUCB].examples == first
        await one.until(60)
        await one.publisher.publish_all()
        assert await versions(one) == [1, 2, 3]


async def test_when_every_snapshot_is_broken_learning_starts_from_the_beginning(store: AwayStore) -> None:
    source = topic()
    async with rig(source, store) as one:
        await one.until(60)
        await one.publisher.publish_all()
    await store.put(f"{FOLDER}/00000001/manifest.json", b"rubbish")
    async with rig(source, store) as one:
        await one.until(60)
        await one.publisher.publish_all()
        assert await versions(one) == [1, 2]


async def test_of_two_learners_of_one_model_the_later_publisher_is_superseded_and_stops_publishing(
    store: AwayStore,
) -> None:
    source = topic()
    async with rig(source, store) as one, rig(source, store) as other:
        await one.until(60)
        await other.until(60)
        await one.publisher.publish_all()
        with pytest.raises(Superseded, match="names version 1, this publisher last saw nothing"):
            await other.publisher.publish_all()
        assert await other.publisher.publish_all()
        assert await versions(one) == [1]
