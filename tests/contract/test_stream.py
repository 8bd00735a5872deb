"""What every ``Source`` must do: the one on Kafka and the one in memory, by the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from banditmesh.local.kafka import Kafka
from banditmesh.runtime.clock import SystemClock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.consumer import KafkaSource
from banditmesh.runtime.kafka.metrics import StreamMetricsFamily
from banditmesh.runtime.kafka.producer import Producer
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from banditmesh.runtime.stream import Consumed, Offsets, Source, Stream, StreamOptions
from tests.support.memory_broker import MemoryTopic

DEADLINE_S = 30.0


class MemoryBackend:
    def __init__(self) -> None:
        self._topic = MemoryTopic(partitions=2)

    async def append(self, partition: int, value: bytes) -> tuple[int, int]:
        """Offset and broker time."""
        offset = await self._topic.append(partition, value)
        return offset, self._topic.logs[partition][-1].time_ms

    async def commit(self, partition: int, offset: int) -> None:
        self._topic.committed["group", partition] = offset

    def source(self) -> Source:
        return self._topic.source("group")


class KafkaBackend:
    def __init__(self, bootstrap: str, topic: str, group: str, producer: Producer) -> None:
        self._bootstrap, self._topic, self._group, self._producer = bootstrap, topic, group, producer

    async def append(self, partition: int, value: bytes) -> tuple[int, int]:
        acked = await self._producer.send(self._topic, b"", value, partition)
        return acked.offset, acked.timestamp_ms

    async def commit(self, partition: int, offset: int) -> None:
        """As an owner of an earlier time did."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, group_id=self._group, enable_auto_commit=False)
        await consumer.start()
        try:
            at = TopicPartition(self._topic, partition)
            consumer.assign([at])
            await consumer.commit({at: offset})
        finally:
            await consumer.stop()

    def source(self) -> Source:
        return KafkaSource(self._bootstrap, self._topic, self._group, client_id="test", session_timeout_s=6)


Backend = MemoryBackend | KafkaBackend


@pytest.fixture(params=["memory", "kafka"])
async def backend(request: pytest.FixtureRequest, fresh_topic_prefix: str) -> AsyncIterator[Backend]:
    if request.param == "memory":
        yield MemoryBackend()
        return
    kafka: Kafka = request.getfixturevalue("kafka")
    topics = Topics.named(fresh_topic_prefix)
    await ensure_topics(kafka.bootstrap, topics, partitions=2, replication=1)
    producer = Producer(kafka.bootstrap)
    await producer.start()
    yield KafkaBackend(kafka.bootstrap, topics.reactions, f"{fresh_topic_prefix}group", producer)
    await producer.stop()


@dataclass
class Member:
    """A started source, and what it was told of rebalances."""

    source: Source
    assigned: set[int] = field(default_factory=set)
    events: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_assigned(self, partitions: frozenset[int]) -> None:
        self.assigned = set(partitions)
        self.events.append("assigned")
        self.changed.set()

    async def on_revoked(self) -> None:
        self.assigned = set()
        self.events.append("revoked")
        self.changed.set()

    async def owns(self, n: int) -> None:
        """Wait until it has ``n`` partitions; fetching meanwhile, as members must."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.assigned) != n:
                await self.source.fetch(0.05)

    async def fetch(self, wanted: int) -> list[Consumed]:
        got: list[Consumed] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(got) < wanted:
                for records in (await self.source.fetch(0.1)).values():
                    got += records
        return got


@asynccontextmanager
async def member(backend: Backend) -> AsyncIterator[Member]:
    source = backend.source()
    here = Member(source)
    await source.start(here.on_assigned, here.on_revoked)
    try:
        yield here
    finally:
        await source.stop()


async def test_records_are_read_from_where_it_was_sought_to(backend: Backend) -> None:
    sent = [await backend.append(0, b"%d" % i) for i in range(5)]
    async with member(backend) as alone:
        await alone.owns(2)
        alone.source.seek(0, sent[2][0])
        alone.source.resume(0)
        got = await alone.fetch(3)
    assert [(record.offset, record.time_ms, record.value) for record in got] == [
        (*sent[i], b"%d" % i) for i in (2, 3, 4)
    ]


async def test_a_seek_back_delivers_again(backend: Backend) -> None:
    for i in range(3):
        await backend.append(0, b"%d" % i)
    async with member(backend) as alone:
        await alone.owns(2)
        for _ in range(2):
            alone.source.seek(0, 0)
            alone.source.resume(0)
            assert [record.value for record in await alone.fetch(3)] == [b"0", b"1", b"2"]


async def test_a_paused_partition_gives_nothing_and_goes_on_where_it_was(backend: Backend) -> None:
    await backend.append(0, b"first")
    async with member(backend) as alone:
        await alone.owns(2)
        for partition in (0, 1):
            alone.source.seek(partition, 0)
            alone.source.resume(partition)
        assert [record.value for record in await alone.fetch(1)] == [b"first"]
        alone.source.pause(0)
        await backend.append(0, b"second")
        await backend.append(1, b"other")
        assert [record.value for record in await alone.fetch(1)] == [b"other"]
        alone.source.resume(0)
        assert [record.value for record in await alone.fetch(1)] == [b"second"]


async def test_a_fetch_without_records_returns_nothing_in_time(backend: Backend) -> None:
    async with member(backend) as alone:
        await alone.owns(2)
        assert await alone.source.fetch(0.05) == {}


async def test_nothing_is_committed_until_somebody_commits(backend: Backend) -> None:
    await backend.append(0, b"0")
    await backend.append(0, b"1")
    async with member(backend) as alone:
        await alone.owns(2)
        assert await alone.source.committed(0) is None
    await backend.commit(0, 1)
    async with member(backend) as alone:
        await alone.owns(2)
        assert (await alone.source.committed(0), await alone.source.committed(1)) == (1, None)


async def test_ends_and_times_can_be_asked_for(backend: Backend) -> None:
    sent = [await backend.append(0, b"%d" % i) for i in range(3)]
    async with member(backend) as alone:
        await alone.owns(2)
        assert await alone.source.beginning(0) == 0
        assert await alone.source.end(0) == 3
        assert await alone.source.at(0, 0) == 0
        first_of_its_time = next(offset for offset, time_ms in sent if time_ms == sent[2][1])
        assert await alone.source.at(0, sent[2][1]) == first_of_its_time
        assert await alone.source.at(0, sent[2][1] + 3_600_000) is None


async def test_a_partition_that_is_not_assigned_cannot_be_sought(backend: Backend) -> None:
    async with member(backend) as alone:
        await alone.owns(2)
        with pytest.raises(Unavailable):
            alone.source.seek(5, 0)
        alone.source.resume(5)


async def test_two_members_share_and_the_last_one_has_all(backend: Backend) -> None:
    async with member(backend) as first:
        await first.owns(2)
        async with member(backend) as second:
            await asyncio.gather(first.owns(1), second.owns(1))
            assert first.assigned | second.assigned == {0, 1}
        await first.owns(2)
    # Kafka tells of a revocation before the first assignment, too.
    events = first.events[first.events.index("assigned") :]
    assert events == ["assigned", "revoked", "assigned", "revoked", "assigned"]


class Processor:
    """Keeps its position by itself, as one with a transaction does."""

    def __init__(self, progress: asyncio.Event, taken: dict[int, list[int]], partition: int, offsets: Offsets) -> None:
        self._progress = progress
        self._taken = taken.setdefault(partition, [])
        self._partition = partition
        self._offsets = offsets

    async def start_offset(self) -> int:
        return self._taken[-1] + 1 if self._taken else await self._offsets.beginning(self._partition)

    async def process(self, records: Sequence[Consumed]) -> None:
        self._taken += [record.offset for record in records]
        self._progress.set()

    async def tick(self) -> None: ...

    async def close(self) -> None: ...


async def test_streams_that_come_and_go_take_every_record_once_and_in_order(backend: Backend) -> None:
    taken: dict[int, list[int]] = {}
    progress = asyncio.Event()

    async def opened(partition: int, offsets: Offsets) -> Processor:
        return Processor(progress, taken, partition, offsets)

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                progress.clear()
                await progress.wait()

    @asynccontextmanager
    async def stream() -> AsyncIterator[Stream]:
        options = StreamOptions(tick_every_s=60.0, batch=7, buffer=20, poll_s=0.05)
        metrics = StreamMetricsFamily(CollectorRegistry()).stream("test")
        here = Stream("test", backend.source, opened, options=options, clock=SystemClock(), metrics=metrics)
        task = asyncio.create_task(here.run())
        try:
            yield here
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def append(n: int) -> None:
        for _ in range(n):
            await backend.append(0, b"x")
            await backend.append(1, b"x")

    def total() -> int:
        return sum(map(len, taken.values()))

    async with stream():
        await append(30)
        await until(lambda: total() == 60)
        async with stream():
            await append(30)
            await until(lambda: total() == 120)
        await append(30)
        await until(lambda: total() == 180)
    assert taken == {0: list(range(90)), 1: list(range(90))}
