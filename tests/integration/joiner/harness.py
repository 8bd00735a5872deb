"""A mesh of one joiner, or several, on real servers: what goes into its topics, and what comes out."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime import keys
from banditmesh.runtime.addresses import KafkaAddress, RedisAddress
from banditmesh.runtime.kafka.producer import Acked, Producer, Record
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.stream import Consumed
from banditmesh.runtime.user_record import UserRecord
from banditmesh.runtime.user_records import UserRecords
from services.joiner.bootstrap import bootstrap
from services.joiner.settings import JoinerSettings

DEADLINE_S = 40.0
MESH = """
services:
  films: {{logics: [similar]}}
placements:
  home:
    sources: [films/similar]
    rewards: {{targets: {{purchase: 3.0}}}}
  brief:
    sources: [films/similar]
    join_window: 300ms
kafka: {{topic_prefix: "{prefix}", partitions: {partitions}}}
join: {{window: {window}, tick_every: 100ms, slack: {slack}}}
token: {{max_age: {max_age}}}
"""


@dataclass(frozen=True)
class World:
    """Where a joiner lives. Closed by :func:`world`."""

    kafka: str
    redis: str
    config: Path
    topics: Topics
    producer: Producer
    partitions: int

    def settings(self, **changes: object) -> JoinerSettings:
        """Settings of a joiner."""
        return JoinerSettings(
            config=self.config,
            kafka=KafkaAddress.parse(self.kafka),
            redis=RedisAddress.parse(self.redis),
            **changes,  # type: ignore[arg-type]
        )

    async def show(self, *impressions: events_pb2.Decision) -> list[Acked]:
        """Track impressions."""
        return await self.producer.send_many(
            [
                Record(
                    self.topics.impressions,
                    decision.user_id.encode(),
                    events_pb2.Impression(schema_version=1, decision=decision).SerializeToString(),
                )
                for decision in impressions
            ]
        )

    async def react(self, *reactions: events_pb2.Reaction) -> list[Acked]:
        """Track reactions."""
        return await self.producer.send_many(
            [
                Record(self.topics.reactions, each.decision.user_id.encode(), each.SerializeToString())
                for each in reactions
            ]
        )

    async def write_raw(self, topic: str, key: bytes, value: bytes) -> None:
        """Write what our own producers refuse."""
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, max_request_size=2**20)
        await producer.start()
        try:
            await producer.send_and_wait(topic, value, key)
        finally:
            await producer.stop()

    async def record(self, user_id: str) -> UserRecord:
        """What the joiner keeps of a user."""
        (value,) = await self._read_records([user_id])
        return UserRecord.empty() if value is None else UserRecord.unpack(value)

    async def records(self, user_ids: Sequence[str]) -> UserRecords:
        """What the joiner keeps of users."""
        return UserRecords(await self._read_records(user_ids))

    async def _read_records(self, user_ids: Sequence[str]) -> list[bytes | None]:
        redis = RedisClient(self.redis, timeout_s=5.0)
        try:
            return await redis.read([keys.state(keys.user_tag(user_id)) for user_id in user_ids])
        finally:
            await redis.close()

    async def until_reactions_at(self, time_ms: int) -> None:
        """Wait until every reactions partition has a record (a tick) later than this broker time."""

        def passed(got: list[Consumed]) -> bool:
            return len({record.partition for record in got if record.time_ms > time_ms}) == self.partitions

        await self.read(self.topics.reactions, passed)

    async def read(
        self, topic: str, enough: Callable[[list[Consumed]], bool], *, deadline_s: float = DEADLINE_S
    ) -> list[Consumed]:
        """All committed records of a topic from its beginning, as soon as they are enough."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka, isolation_level="read_committed", fetch_max_wait_ms=50
        )
        await consumer.start()
        got: list[Consumed] = []
        try:
            partitions = [TopicPartition(topic, partition) for partition in range(self.partitions)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            async with asyncio.timeout(deadline_s):
                while not enough(got):
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        got += [
                            Consumed(r.topic, r.partition, r.offset, r.timestamp, r.key or b"", r.value)
                            for r in records
                        ]
        except TimeoutError:
            raise AssertionError(f"not enough in {topic} after {deadline_s:g} s: {len(got)} records") from None
        finally:
            await consumer.stop()
        return got

    async def rewind(self) -> None:
        """Let the next joiner begin at the first impression."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka,
            group_id=f"{self.topics.impressions.removesuffix('impressions')}joiner-impressions",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(self.topics.impressions, partition) for partition in range(self.partitions)]
            consumer.assign(partitions)
            await consumer.commit(dict.fromkeys(partitions, 0))
        finally:
            await consumer.stop()

    async def examples(self, n: int, **options: float) -> list[events_pb2.Example]:
        """The first ``n`` or more examples that are no ticks."""
        records = await self.read(self.topics.examples, lambda got: len(joined(got)) >= n, **options)
        return joined(records)

    async def ticks_after(self, topic: str, n: int = 1) -> None:
        """Wait until ``n`` more records stand in every partition of a topic: the joiner is idle."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka)
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, partition) for partition in range(self.partitions)]
            ends = await consumer.end_offsets(partitions)
        finally:
            await consumer.stop()
        wanted = {partition.partition: end + 2 * n for partition, end in ends.items()}

        def passed(got: list[Consumed]) -> bool:
            last = {record.partition: record.offset for record in got}
            return all(last.get(partition, -1) >= end for partition, end in wanted.items())

        await self.read(topic, passed)


@asynccontextmanager
async def world(
    kafka: str,
    redis: str,
    prefix: str,
    folder: Path,
    *,
    partitions: int = 2,
    window: str = "1s",
    slack: str = "1h",
    max_age: str = "1h",
) -> AsyncIterator[World]:
    """Topics, a mesh.yaml and a producer."""
    config = folder / "mesh.yaml"
    config.write_text(MESH.format(prefix=prefix, partitions=partitions, window=window, slack=slack, max_age=max_age))
    topics = Topics.named(prefix)
    await ensure_topics(kafka, topics, partitions=partitions, replication=1)
    producer = Producer(kafka)
    await producer.start()
    try:
        yield World(kafka, redis, config, topics, producer, partitions)
    finally:
        await producer.stop()


@asynccontextmanager
async def joiner(settings: JoinerSettings) -> AsyncIterator[Server]:
    """A joiner in this process."""
    server = Server(ServerOptions())
    await bootstrap(settings, server)
    async with server:
        yield server


class JoinerProcess:
    """A joiner in a process of its own, to be killed."""

    def __init__(self, world: World, log: Path, session_s: int) -> None:
        self._log = log.open("ab")
        environment = {
            **os.environ,
            "BANDITMESH_KAFKA": world.kafka,
            "BANDITMESH_REDIS": world.redis,
            "BANDITMESH_GRPC_ADDRESS": "127.0.0.1:0",
            "BANDITMESH_METRICS_PORT": "0",
            "BANDITMESH_METRICS_HOST": "127.0.0.1",
            "BANDITMESH_BATCH": "50",
            "BANDITMESH_SESSION_TIMEOUT_S": str(session_s),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.joiner", "--config", str(world.config)],
            env=environment,
            stdout=self._log,
            stderr=self._log,
        )

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def suspend(self) -> None:
        """SIGSTOP: it is not dead, but does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(30)
        self._log.close()
        return code


@contextmanager
def joiner_process(world: World, log: Path, *, session_s: int = 6) -> Iterable[JoinerProcess]:
    """A joiner process that is gone in any case afterwards."""
    process = JoinerProcess(world, log, session_s)
    try:
        yield process
    finally:
        if process._process.poll() is None:
            process.kill()


def decision(number: int, *, user: str | None = None, placement: str = "home") -> events_pb2.Decision:
    """Decision number ``number``, of a user of its own unless one is named."""
    return events_pb2.Decision(
        impression_id=number.to_bytes(16, "big"),
        user_id=user if user is not None else f"user-{number}",
        placement=placement,
        service="films",
        content_id=f"film-{number}",
        logic="similar",
        propensity=0.25,
        features=events_pb2.Features(ids=[1, 2, 3]),
        decided_at_ms=1_700_000_000_000,
    )


def click(on: events_pb2.Decision) -> events_pb2.Reaction:
    """A click."""
    return events_pb2.Reaction(schema_version=1, decision=on, click=events_pb2.Click())


def mute(on: events_pb2.Decision) -> events_pb2.Reaction:
    """A mute."""
    return events_pb2.Reaction(schema_version=1, decision=on, mute=events_pb2.Mute())


def purchase(on: events_pb2.Decision, weight: float = 1.0) -> events_pb2.Reaction:
    """A target action."""
    target = events_pb2.TargetAction(name="purchase", weight=weight)
    return events_pb2.Reaction(schema_version=1, decision=on, target=target)


def joined(records: Sequence[Consumed]) -> list[events_pb2.Example]:
    """The examples among records that are no ticks."""
    examples = [events_pb2.Example.FromString(record.value) for record in records]
    return [example for example in examples if example.WhichOneof("body") == "joined"]


def by_impression(examples: Iterable[events_pb2.Example]) -> Mapping[int, events_pb2.JoinedImpression]:
    """Joined impressions by the number of their decision; each must be there once."""
    found: dict[int, events_pb2.JoinedImpression] = {}
    for example in examples:
        number = int.from_bytes(example.joined.decision.impression_id, "big")
        assert number not in found, f"two examples of impression {number}"
        found[number] = example.joined
    return found
