"""The engine follows what the importer announces, and does not believe in a stream that has holes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from banditmesh.runtime import keys
from banditmesh.runtime.clock import SystemClock
from banditmesh.runtime.metrics import new_registry
from banditmesh.runtime.packing import LiveVersion
from banditmesh.runtime.redis import RedisClient
from services.crs_engine.live import LiveFollower
from services.crs_engine.metrics import EngineMetrics

SOURCE = "weather/today"
PATIENCE_S = 20.0


class Contents:
    """Takes down what the follower says of contents, and wakes who waits for it."""

    def __init__(self) -> None:
        self.changed: list[list[int] | None] = []
        self._news = asyncio.Event()

    def __call__(self, changed: NDArray[np.uint64] | None) -> None:
        self.changed.append(None if changed is None else changed.tolist())
        self._news.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for news until something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not reached():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def follower(url: str, contents: Contents) -> AsyncIterator[tuple[LiveFollower, RedisClient]]:
    store = RedisClient(url, timeout_s=5.0)
    try:
        yield (
            LiveFollower(store, [SOURCE, keys.PROFILES], contents, SystemClock(), EngineMetrics(new_registry())),
            store,
        )
    finally:
        await store.close()


@asynccontextmanager
async def following(live: LiveFollower) -> AsyncIterator[None]:
    task = asyncio.create_task(live.follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def announce(store: RedisClient, **fields: str | bytes | int) -> None:
    await store.client.xadd(keys.CHANGES, fields)


def packed(*contents: int) -> bytes:
    return np.array(contents, "<u8").tobytes()


async def test_a_flip_and_changed_contents_are_taken_from_the_stream(fresh_redis: str) -> None:
    contents = Contents()
    async with follower(fresh_redis, contents) as (live, store):
        await store.client.set(keys.live(SOURCE), LiveVersion(1, 0, "monday").pack())
        async with following(live):
            await contents.until(lambda: contents.changed == [None])
            assert live.current.versions[SOURCE].version == 1
            await announce(store, kind="live", source=SOURCE, version=2, slot=1)
            await announce(store, kind="content", keys=packed(7, 8))
            await contents.until(lambda: [7, 8] in contents.changed)
        assert live.current.versions[SOURCE] == LiveVersion(2, 1, "")


async def test_versions_of_sources_that_nobody_here_shows_are_ignored(fresh_redis: str) -> None:
    contents = Contents()
    async with follower(fresh_redis, contents) as (live, store), following(live):
        await contents.until(lambda: contents.changed == [None])
        await announce(store, kind="live", source="shop/other", version=2, slot=1)
        await announce(store, kind="content", keys=packed(1))
        await contents.until(lambda: [1] in contents.changed)
        assert "shop/other" not in live.current.versions


@pytest.mark.parametrize(
    "broken",
    [{"kind": "nonsense"}, {"kind": "live", "source": SOURCE}, {"kind": "content", "keys": b"seven"}],
    ids=["unknown kind", "no version", "no keys"],
)
async def test_an_entry_that_cannot_be_read_is_passed_over(
    fresh_redis: str, broken: dict[str, str | bytes | int]
) -> None:
    contents = Contents()
    async with follower(fresh_redis, contents) as (live, store), following(live):
        await contents.until(lambda: contents.changed == [None])
        await announce(store, **broken)
        await announce(store, kind="content", keys=packed(1))
        await contents.until(lambda: [1] in contents.changed)


async def follow_for_a_while(live: LiveFollower, redis: RedisClient, contents: Contents) -> None:
    """Until what was announced has been read."""
    async with following(live):
        await contents.until(lambda: contents.changed == [None])
        await announce(redis, kind="content", keys=packed(1))
        await contents.until(lambda: [1] in contents.changed)


async def test_after_a_gap_in_the_stream_everything_is_read_anew(fresh_redis: str) -> None:
    contents = Contents()
    async with follower(fresh_redis, contents) as (live, store):
        await follow_for_a_while(live, store, contents)
        pipeline = store.pipeline()
        for _ in range(1500):
            pipeline.xadd(keys.CHANGES, {"kind": "content", "keys": packed(2)}, maxlen=1200, approximate=False)
        await pipeline.execute()
        await store.client.set(keys.live(SOURCE), LiveVersion(5, 0, "lost in the gap").pack())
        async with following(live):
            await contents.until(lambda: contents.changed.count(None) == 2)
        assert live.current.versions[SOURCE].version == 5


async def test_a_stream_that_is_long_but_whole_is_not_read_anew(fresh_redis: str) -> None:
    contents = Contents()
    async with follower(fresh_redis, contents) as (live, store):
        await follow_for_a_while(live, store, contents)
        pipeline = store.pipeline()
        for number in range(1500):
            pipeline.xadd(keys.CHANGES, {"kind": "content", "keys": packed(number)})
        await pipeline.execute()
        async with following(live):
            await contents.until(lambda: [1499] in contents.changed)
        assert contents.changed.count(None) == 1


async def test_an_unreadable_pointer_leaves_the_last_version_in_force(fresh_redis: str) -> None:
    async with follower(fresh_redis, Contents()) as (live, store):
        await store.client.set(keys.live(SOURCE), LiveVersion(3, 1, "x").pack())
        await live.reread()
        await store.client.set(keys.live(SOURCE), b"not a pointer")
        await live.reread()
        assert live.current.versions[SOURCE].version == 3


async def test_a_flip_during_a_read_of_the_pointers_is_not_undone_by_it(fresh_redis: str) -> None:
    """The pointers are read, a flip is announced and taken in, and only then the answer of the read arrives."""
    contents = Contents()
    answered, overtaken = asyncio.Event(), asyncio.Event()

    class OvertakenStore(RedisClient):
        held = False

        async def read(self, keys: Sequence[str]) -> list[bytes | None]:
            values = await super().read(keys)
            if self.held:
                self.held = False
                answered.set()
                await overtaken.wait()
            return values

    store = OvertakenStore(fresh_redis, timeout_s=5.0)
    live = LiveFollower(store, [SOURCE], contents, SystemClock(), EngineMetrics(new_registry()))
    await store.client.set(keys.live(SOURCE), LiveVersion(1, 0, "monday").pack())
    async with following(live):
        await contents.until(lambda: contents.changed == [None])
        store.held = True
        reading = asyncio.create_task(live.reread())
        await answered.wait()
        await store.client.set(keys.live(SOURCE), LiveVersion(2, 1, "tuesday").pack())
        await announce(store, kind="live", source=SOURCE, version=2, slot=1)
        await announce(store, kind="content", keys=packed(1))
        await contents.until(lambda: [1] in contents.changed)
        overtaken.set()
        await reading
    await store.close()
    assert live.current.versions[SOURCE].version == 2
