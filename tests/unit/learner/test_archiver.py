"""The archiver, with a list for a topic: each example once, whatever dies and when."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from banditmesh.archive.forgotten import remember
from banditmesh.archive.reader import read
from banditmesh.archive.state import State, States, complete_until
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.errors import Aborted, PermissionDenied, Unavailable
from banditmesh.runtime.outages import outages
from banditmesh.runtime.store import Store, open_store
from services.learner.archiving.examples import ExamplesFormat
from services.learner.archiving.metrics import ArchiveMetrics
from services.learner.reader import Known, Reader
from tests.support.examples import T0_MS, Given, example, tick, traffic
from tests.unit.learner.archiving import DAY, T0, Rig, by_reader, examples_of, in_files, topic_of
from tests.unit.learner.parts import Topic


class Killed(BaseException):
    """The process has ended here."""


class MortalStore:
    """A store whose process dies at the n-th write: before it, or after it and before it hears of it."""

    def __init__(self, store: Store, dies_at: int, *, after: bool) -> None:
        self._store, self._dies_at, self._after = store, dies_at, after
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put_new(self, key: str, body: bytes) -> str:
        return await self._write(lambda: self._store.put_new(key, body))

    async def replace(self, key: str, body: bytes, etag: str) -> str:
        return await self._write(lambda: self._store.replace(key, body, etag))

    async def _write(self, write: Callable[[], Any]) -> str:
        self.writes += 1
        if self.writes == self._dies_at and not self._after:
            raise Killed
        done: str = await write()
        if self.writes == self._dies_at:
            raise Killed
        return done


class Slowly:
    """A list whose elements take their time."""

    def __init__(self, elements: Callable[[], Iterator[Any]]) -> None:
        self.__iter = elements

    def __iter__(self) -> Iterator[Any]:
        return self.__iter()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path.as_uri())


async def test_each_example_is_in_the_archive_once_with_all_that_it_says(store: Store, tmp_path: Path) -> None:
    topic = topic_of(200)
    one = Rig(topic, store)

    await one.archive()

    assert in_files(tmp_path) == await by_reader(store) == examples_of(topic)
    assert one.metric("archived_rows_total", kind="examples", placement="home") == 200
    batches = [each async for each in read(store, "home", T0 - DAY, T0 + DAY)]
    first = pa.Table.from_batches(batches).sort_by("example_time").to_pylist()[0]
    given = next(
        record
        for records in topic.records.values()
        for record in records
        if record.time_ms == min(record.time_ms for records in topic.records.values() for record in records)
    )
    joined = events_pb2.Example.FromString(given.value).joined
    decision = joined.decision
    assert {**first, "feature_values": None} == {
        "impression_time": datetime.fromtimestamp(joined.impression_time_ms / 1000, UTC),
        "user": "u1",
        "service": "films",
        "content": decision.content_id,
        "logic": "similar",
        "position": 0,
        "variant": "",
        "model": "",
        "model_version": 0,
        "propensity": 0.5,
        "origin": "unspecified",
        "feature_ids": list(decision.features.ids),
        "feature_values": None,
        "outcome": "click" if joined.reward == 1 else "none",
        "target": None,
        "reward": joined.reward,
        "reactions": [],
        "reaction_time": None,
        "decided_at": datetime.fromtimestamp(0, UTC),
        "impression_id": bytes(16),
        "example_time": datetime.fromtimestamp(given.time_ms / 1000, UTC),
        "example_log": 100 + given.partition,
        "example_partition": given.partition,
        "example_offset": given.offset,
        "source_log": 0,
        "source_partition": given.partition,
        "source_offset": 0,
    }
    assert first["feature_values"] == pytest.approx(list(decision.features.values))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_death_at_any_write_neither_loses_nor_doubles_an_example(after: bool, tmp_path: Path) -> None:
    topic, writes = topic_of(30, partitions=1, at_once=5), 0
    for dies_at in range(1, 1000):
        folder = tmp_path / str(dies_at)
        mortal = MortalStore(open_store(folder.as_uri()), dies_at, after=after)
        died = 0
        for n in (11, 24):  # each time it is cut otherwise
            one = Rig(topic, mortal)  # type: ignore[arg-type]
            try:
                await one.archive(n)
            except Killed:
                died += 1
            doubled = in_files(folder) - examples_of(topic)
            assert not doubled, f"died at write {dies_at}"
        await Rig(topic, open_store(folder.as_uri())).archive()
        assert in_files(folder) == await by_reader(open_store(folder.as_uri())) == examples_of(topic)
        if not died:
            writes = dies_at - 1
            break
    assert writes > 7


async def test_a_zombie_is_fenced_and_what_it_had_in_its_hands_does_not_double(store: Store, tmp_path: Path) -> None:
    topic = topic_of(100)
    zombie, successor = Rig(topic, store), Rig(topic, store)
    await zombie.read(20)
    await successor.archive(31)

    with pytest.raises(Aborted):
        await zombie.archiver.flush()
    await successor.archive()
    await zombie.archive()

    assert in_files(tmp_path) == examples_of(topic)


async def test_a_zombie_that_wakes_within_a_range_looks_whether_it_is_still_its_own(
    store: Store, tmp_path: Path
) -> None:
    """Its successor's file was compacted and deleted meanwhile: it must not come back."""
    topic = topic_of(100, partitions=1)
    zombie, successor = Rig(topic, store), Rig(topic, store)
    tables = zombie.archiver._format.tables

    async def stopped_for_an_hour(*args: Any) -> Any:
        found = await tables(*args)

        def slowly() -> Iterator[Any]:
            for each in found:
                zombie.clock._elapsed_s += 3600.0
                yield each

        return Slowly(slowly)

    zombie.archiver._format.tables = stopped_for_an_hour  # type: ignore[method-assign]
    changes = zombie.archiver._states.put

    async def then_the_successor(*args: Any) -> Any:
        held = await changes(*args)
        if args[2].is_begun:
            await successor.archive()
            for path in (tmp_path / "archive" / "examples").rglob("*.parquet"):
                path.unlink()
        return held

    zombie.archiver._states.put = then_the_successor  # type: ignore[method-assign]
    await zombie.read(20)

    with pytest.raises(Aborted):
        await zombie.archiver.flush()

    assert in_files(tmp_path) == Counter()


async def test_what_retention_took_is_a_gap_that_is_counted_and_written_down(store: Store) -> None:
    topic = topic_of(100, partitions=1)
    await Rig(topic, store).archive(30)
    kept = topic.records[0][50:]

    late = Rig(topic, store)
    opened = late.archiver._open_reader

    def forgetful(begin: Callable[[Mapping[int, int]], Known]) -> AbstractAsyncContextManager[Reader]:
        return opened(lambda logs: {0: [(50, logs[0])]} if begin(logs) else {})

    late.archiver._open_reader = forgetful
    await late.archive()

    state = (await States(store, "examples").all())[100, 0]
    assert [(gap.start, gap.end) for gap in state.gaps] == [(30, 50)]
    assert late.metric("archive_lost_offsets_total", kind="examples") == 20
    assert len(await by_reader(store)) == 30 + len(kept) - 1


async def test_a_topic_that_was_made_anew_is_archived_from_its_beginning(store: Store, tmp_path: Path) -> None:
    topic = topic_of(40, partitions=1)
    await Rig(topic, store).archive()
    anew = topic_of(25, partitions=1, seed=2)
    anew.generation = 2

    await Rig(anew, store).archive()

    assert sum(in_files(tmp_path).values()) == 65


async def test_a_second_copy_of_an_impression_is_left_out_also_by_the_next_process(store: Store) -> None:
    topic = Topic(1)
    first, second = (example(source=(0, number), time_ms=T0_MS).SerializeToString() for number in (5, 6))
    topic.append([Given(0, T0_MS, first), Given(0, T0_MS, second)])
    await Rig(topic, store).archive()
    topic.append([Given(0, T0_MS, first), Given(0, T0_MS, second)])
    one = Rig(topic, store)
    await one.archive()

    assert await by_reader(store) == Counter([(0, 0), (0, 1)])
    assert one.metric("archive_passed_over_total", kind="examples", reason="duplicate") == 2


async def test_poison_is_passed_over_and_a_partition_of_ticks_moves_on(store: Store) -> None:
    topic = Topic(2)
    topic.append([Given(0, T0_MS, b"\xff\xff"), Given(0, T0_MS + 1, example().SerializeToString())])
    topic.append([Given(1, T0_MS + 9000, tick().SerializeToString())])
    one = Rig(topic, store)

    await one.archive()

    assert await by_reader(store) == Counter([(0, 1)])
    assert one.metric("archive_passed_over_total", kind="examples", reason="not_a_protobuf") == 1
    assert (await complete_until(store)).timestamp() * 1000 == T0_MS + 1


async def test_a_placement_that_no_key_of_the_store_can_name_does_not_stop_the_archive(store: Store) -> None:
    topic = Topic(1)
    names = ("x" * 5000, "é" * 64, "home")
    topic.append(
        [Given(0, T0_MS, example(source=(0, at), placement=name).SerializeToString()) for at, name in enumerate(names)]
    )
    one = Rig(topic, store)

    await one.archive()

    assert await by_reader(store) == Counter([(0, 2)])
    assert one.metric("archive_passed_over_total", kind="examples", reason="too_long") == 2


async def test_pseudonyms_stand_for_users_when_they_are_wanted(store: Store) -> None:
    topic = topic_of(5)
    await Rig(topic, store, user_id=lambda user: f"hash of {user}").archive()

    batches = [each async for each in read(store, "home", T0 - DAY, T0 + DAY, columns=["user"])]
    assert set(pa.Table.from_batches(batches).column("user").to_pylist()) == {"hash of u1"}


async def test_what_is_still_on_its_way_of_a_forgotten_user_does_not_come_in(store: Store) -> None:
    topic = Topic(1)
    topic.append([Given(0, T0_MS, example(source=(0, 1), time_ms=T0_MS).SerializeToString())])
    topic.append([Given(0, T0_MS + 9, example(source=(0, 2), time_ms=T0_MS + 9).SerializeToString())])
    await remember(store, "u1", T0_MS + 5)

    await Rig(topic, store).archive()

    assert await by_reader(store) == Counter([(0, 1)])


async def test_rows_beyond_the_memory_are_written_before_their_time(store: Store, tmp_path: Path) -> None:
    topic = topic_of(100)
    one = Rig(topic, store)
    one.archiver._most_bytes = 4000
    running = asyncio.create_task(one.archiver.run())
    while sum(in_files(tmp_path).values()) < 90:
        await asyncio.sleep(0)
        await one.clock.advance(0.1)
        assert not running.done()
    running.cancel()
    assert in_files(tmp_path) <= examples_of(topic)


async def test_a_store_that_is_away_is_tried_again_and_nothing_is_lost(store: Store, tmp_path: Path) -> None:
    topic = topic_of(60)
    refused, rng = 0, np.random.default_rng(1)

    class Away(MortalStore):
        async def _write(self, write: Callable[[], Any]) -> str:
            nonlocal refused
            self.writes += 1
            if rng.random() < 0.4:
                refused += 1
                raise Unavailable("the store is away")
            return str(await write())

    away = Away(store, 0, after=False)
    while in_files(tmp_path) != examples_of(topic):
        with contextlib.suppress(Unavailable):
            await Rig(topic, away).archive()  # type: ignore[arg-type]
    assert refused > 3
    await Rig(topic, store).archive()
    assert in_files(tmp_path) == await by_reader(store) == examples_of(topic)


async def test_a_store_that_may_be_read_and_not_written_is_away_until_something_is_written(store: Store) -> None:
    class Refusing(MortalStore):
        refuses = True

        async def _write(self, write: Callable[[], Any]) -> str:
            self.writes += 1
            if self.refuses:
                raise PermissionDenied("refuses PutObject", dependency="store")
            return str(await write())

    topic = topic_of(60)
    await Rig(topic, store).archive()
    topic.append(traffic(60, partitions=topic.partitions, seed=2))
    refusing = Refusing(store, 0, after=False)
    one = Rig(topic, refusing)  # type: ignore[arg-type]
    running = asyncio.create_task(one.archiver.run())
    seen = []
    while refusing.writes < 3:  # it looks where it stands after each of them
        await asyncio.sleep(0)
        await one.clock.advance(1.0)
        if refusing.writes:
            seen.append(outages.is_down("store"))
    assert all(seen[1:])
    refusing.refuses = False
    while outages.is_down("store"):
        await asyncio.sleep(0)
        await one.clock.advance(1.0)
        assert not running.done()
    running.cancel()


async def test_what_a_quiet_topic_brings_takes_the_memory_of_its_rows_and_not_of_its_reads(store: Store) -> None:
    records = traffic(300, partitions=1, seed=3)
    by_little, at_once = Topic(1, at_once=1), Topic(1)
    for topic in (by_little, at_once):
        topic.append(records)
    little = Rig(by_little, store)
    await little.read(len(records))
    (partition,) = little.archiver._partitions.values()
    assert len(partition.pieces) < 12
    assert sum(piece.rows for piece in partition.pieces) == 300
    whole = Rig(at_once, store)
    await whole.read(len(records))
    (other,) = whole.archiver._partitions.values()
    assert await tables(little, partition.pieces) == await tables(whole, other.pieces)


async def test_reads_on_both_sides_of_the_end_of_a_range_that_is_begun_stay_apart(store: Store) -> None:
    topic = Topic(1, at_once=1)
    topic.append(traffic(40, partitions=1, seed=3))
    pieces = ExamplesFormat(None, ArchiveMetrics(CollectorRegistry()), join_window_s=600.0).pieces
    rig, mark, made = Rig(topic, store), State(0, 0, 0).mark, []
    for record in topic.records[0]:
        made += pieces([record], 100, made[-1].mark if made else mark)
        rig.archiver._merge(made, begun=10)
    assert 10 in [piece.end for piece in made]


async def tables(rig: Rig, pieces: list[Any]) -> list[tuple[str, Any]]:
    found = await rig.archiver._format.tables(pieces, 100, 0)
    return [(folder.prefix, table.combine_chunks().to_pydict()) for folder, table in found]
