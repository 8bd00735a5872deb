"""The learner's densities: read as they come, published as deltas, gone back as one, and whole after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.retrieval.user_vector import pack
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import DataLoss, NotFound
from banditmesh.runtime.retrieval_options import Density
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import open_store
from banditmesh.runtime.stream import Consumed
from services.learner.catalog import ShardId
from services.learner.density_events import REMEMBERED, Decoder
from services.learner.density_learner import CLICKS, SHOWS, DensityLearner, superfluous
from services.learner.density_shard import DensityShard
from services.learner.metrics import LearnerMetrics
from services.learner.reader import Known

NOW_S = 1_700_000_000.0
LATER_S = NOW_S + 30.0
OPTIONS = Density(share=10, features=32, half_life="1h")  # type: ignore[arg-type]
PARAMS = OPTIONS.params(8)
TASTE = pack(np.eye(8, dtype=np.float32)[:1])[0]


def decision(impression: int, content: str = "a", placement: str = "home") -> events_pb2.Decision:
    return events_pb2.Decision(
        impression_id=impression.to_bytes(16, "big"),
        placement=placement,
        service="news",
        content_id=content,
        user_vector=TASTE,
    )


class Topic:
    """One topic of one partition, and readers of it."""

    def __init__(self) -> None:
        self.log: list[Consumed] = []
        self.positions: dict[int, int] = {}
        self.logs = {0: 7}
        self.lost = 0
        self.read_to_end = asyncio.Event()

    def shown(self, *decisions: events_pb2.Decision) -> None:
        self._append([events_pb2.Impression(decision=each).SerializeToString() for each in decisions])

    def clicked(self, *decisions: events_pb2.Decision, at_s: float = NOW_S) -> None:
        click = events_pb2.Click()
        self._append([events_pb2.Reaction(decision=each, click=click).SerializeToString() for each in decisions], at_s)

    def _append(self, values: Sequence[bytes], at_s: float = NOW_S) -> None:
        for value in values:
            self.log.append(Consumed("t", 0, len(self.log), int(at_s * 1000), b"", value))
        self.read_to_end.clear()

    @asynccontextmanager
    async def open(self, known: Known) -> AsyncIterator[Topic]:
        start = min((offset for offset, log in known.get(0, ()) if log in (0, 7)), default=0)
        self.positions = {0: max(start - REMEMBERED, 0)}
        self.read_to_end.clear()
        yield self

    async def read(self, partitions: Sequence[int], timeout_s: float) -> Mapping[int, Sequence[Consumed]]:
        await asyncio.sleep(0)
        new = self.log[self.positions[0] :]
        self.positions[0] = len(self.log)
        if not new:
            self.read_to_end.set()
        return {0: new} if new else {}

    def lag(self) -> Mapping[int, int]:
        return {0: len(self.log) - self.positions[0]}

    def grown(self) -> bool:
        return False


class World:
    """Two topics, a store, and learners on them, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.topics = {CLICKS: Topic(), SHOWS: Topic()}
        self.snapshots = Snapshots(open_store(f"file://{folder}"), None)
        self.clock = ManualClock(NOW_S)

    @asynccontextmanager
    async def learner(self) -> AsyncIterator[tuple[DensityLearner, DensityShard]]:
        for topic in self.topics.values():
            topic.read_to_end.clear()
        shard = DensityShard(ShardId("home", PARAMS.model), OPTIONS, PARAMS)
        with ThreadPoolExecutor(1) as thread:
            learner = DensityLearner(
                [shard],
                lambda which, known: self.topics[which].open(known),  # type: ignore[arg-type, return-value]
                self.snapshots,
                thread,
                self.clock,
                LearnerMetrics(CollectorRegistry()),
            )
            task = asyncio.create_task(learner.run())
            try:
                await learner.restored.wait()
                yield learner, shard
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def learned(self) -> None:
        async with asyncio.timeout(20):
            for topic in self.topics.values():
                await topic.read_to_end.wait()


async def test_deltas_follow_a_full_snapshot_and_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.topics[SHOWS].shown(*(decision(at, f"c{at}") for at in range(10)))
    async with world.learner() as (learner, shard):
        await world.learned()
        assert await learner.publish(shard)
        world.topics[CLICKS].clicked(decision(3, "c3"), decision(3, "c3"), decision(4, "x", placement="other"))
        await world.learned()
        assert await learner.publish(shard)
        before = shard.sums.tensors()
    delta = await world.snapshots.load("home", PARAMS.model, 2)
    assert (delta.manifest.base, delta.manifest.offsets, delta.manifest.sources) == (1, {0: 3}, {0: 10})
    assert delta.tensors["contents"].tolist() == [content_key("news", "c3")]
    assert delta.manifest.examples == 11  # the second copy of the click does not count
    world.topics[SHOWS].shown(decision(20, "c3"))
    async with world.learner() as (learner, shard):
        await world.learned()
        assert shard.sums.events == 12
        after = shard.sums.tensors()
        at = after["contents"].tolist().index(content_key("news", "c3"))
        np.testing.assert_allclose(after["show_mass"][at], before["show_mass"][at] + 1)
        await learner.publish(shard)
    assert (await world.snapshots.manifest("home", PARAMS.model, 3)).base == 0  # the first one after a start is full


async def test_what_an_app_sends_again_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.topics[SHOWS].shown(decision(1))
    world.topics[CLICKS].clicked(decision(1))
    async with world.learner() as (learner, shard):
        await world.learned()
        await learner.publish(shard)
    world.topics[SHOWS].shown(decision(1), decision(2))
    world.topics[CLICKS].clicked(decision(1))
    async with world.learner() as (_, shard):
        await world.learned()
        assert shard.sums.events == 3
        assert (shard.shows.next, shard.clicks.next) == ({0: 3}, {0: 2})


async def test_nothing_is_published_where_nothing_happened(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.learner() as (learner, shard):
        await world.learned()
        assert await learner.publish(shard)
    assert await world.snapshots.pointer("home", PARAMS.model) is None


@pytest.mark.parametrize("relearn", [False, True])
async def test_a_rollback_takes_base_and_delta_back_as_one(tmp_path: Path, relearn: bool) -> None:
    world = World(tmp_path)
    async with world.learner() as (learner, shard):
        world.topics[SHOWS].shown(*(decision(at, f"c{at}") for at in range(10)))
        await world.learned()
        await learner.publish(shard)
        for impression, at_s in ((1, NOW_S), (2, LATER_S)):
            world.topics[CLICKS].clicked(decision(impression, f"c{impression}"), at_s=at_s)
            await world.learned()
            await learner.publish(shard)
        manifest = await learner.rollback(shard, 2, relearn=relearn)
        assert (manifest.version, manifest.base, manifest.rolled_back_to) == (4, 1, 2)
        # What a version holds and how far its learner has come are two things.
        position = await world.snapshots.manifest("home", PARAMS.model, 2 if relearn else 3)
        assert (manifest.offsets, manifest.watermark_ms) == (position.offsets, position.watermark_ms)
        assert position.watermark_ms == (LATER_S if not relearn else NOW_S) * 1000
        again = await world.snapshots.load("home", PARAMS.model, 4)
        assert again.tensors["contents"].tolist() == [content_key("news", "c1")]
        if relearn:
            world.topics[CLICKS].read_to_end.clear()
            await world.learned()
        assert shard.sums.events == (12 if relearn else 11)
        with pytest.raises(NotFound, match="has no version 9"):
            await learner.rollback(shard, 9, relearn=False)
        await world.snapshots._store.delete(f"models/home/{PARAMS.model}/00000001/tensors.safetensors")
        with pytest.raises(DataLoss, match="version 2"):
            await learner.rollback(shard, 2, relearn=False)


async def test_a_broken_newest_version_is_passed_over_at_the_start(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.learner() as (learner, shard):
        for at in range(2):
            world.topics[SHOWS].shown(*(decision(10 * at + each, f"c{each}") for each in range(5)))
            await world.learned()
            await learner.publish(shard)
    await world.snapshots._store.delete(f"models/home/{PARAMS.model}/00000002/manifest.json")
    async with world.learner() as (_, shard):
        await world.learned()
        assert shard.sums.events == 10  # five restored, five read again


def test_what_cannot_be_read_and_what_is_no_click_is_passed_over() -> None:
    values = [b"\xff", events_pb2.Reaction(tick=events_pb2.Tick()).SerializeToString()]
    values += [events_pb2.Reaction(decision=decision(1), mute=events_pb2.Mute()).SerializeToString()]
    values += [events_pb2.Reaction(decision=decision(1), click=events_pb2.Click()).SerializeToString()]
    records = [Consumed("t", 0, at, 5000, b"", value) for at, value in enumerate(values)]
    (event,) = Decoder(CLICKS).events(records)
    assert (event.offset, event.content, event.time_s) == (3, content_key("news", "a"), 5.0)


def test_old_deltas_go_and_no_base_goes_before_them() -> None:
    bases = {1: 0, **dict.fromkeys(range(2, 40), 1), 40: 0, 41: 40, 50: 0, 51: 0, 52: 0, 53: 0, 54: 53}
    gone = superfluous(bases)
    assert gone == list(range(2, 22))
    assert 40 not in superfluous({40: 0, 41: 40, **dict.fromkeys(range(50, 60), 0)})
