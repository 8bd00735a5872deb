"""Topic ``examples`` with contents whose broker time the test chooses, and the examples to put there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from banditmesh.contracts.events.v1 import events_pb2

T0_MS = 1_700_000_000_000


class Given(NamedTuple):
    """A record to be."""

    partition: int
    time_ms: int
    value: bytes


def example(
    *,
    source: tuple[int, int] = (0, 0),
    placement: str = "home",
    content: str = "c1",
    reward: float = 1.0,
    time_ms: int = T0_MS,
    ids: Sequence[int] = (1, 2),
    values: Sequence[float] = (),
    user: str = "u1",
    variant: str = "",
) -> events_pb2.Example:
    """A joined impression that was clicked, unless ``reward`` says something else."""
    return events_pb2.Example(
        schema_version=1,
        source=events_pb2.Source(partition=source[0], offset=source[1]),
        joined=events_pb2.JoinedImpression(
            decision=events_pb2.Decision(
                impression_id=bytes(16),
                user_id=user,
                variant=variant,
                placement=placement,
                service="films",
                logic="similar",
                content_id=content,
                propensity=0.5,
                features=events_pb2.Features(ids=ids, values=values),
            ),
            outcome=events_pb2.OUTCOME_CLICK if reward == 1.0 else events_pb2.OUTCOME_NONE,
            reward=reward,
            impression_time_ms=time_ms,
        ),
    )


def tick() -> events_pb2.Example:
    """Time passed."""
    return events_pb2.Example(schema_version=1, tick=events_pb2.Tick())


def traffic(n: int, *, partitions: int, seed: int, span_s: float = 60.0) -> list[Given]:
    """``n`` examples of a few contents over ``span_s`` of broker time, with noisy features; then closing ticks."""
    rng = np.random.default_rng(seed)
    offsets = [0] * partitions
    records: list[Given] = []
    for time_ms in sorted((T0_MS + rng.uniform(0, span_s * 1000, n)).astype(int).tolist()):
        partition = int(rng.integers(partitions))
        values = rng.normal(size=6).astype(np.float32).tolist()
        one = example(
            source=(partition, offsets[partition]),
            content=f"c{rng.integers(12)}",
            reward=float(rng.choice([0.0, 0.5, 1.0])),
            time_ms=time_ms - 5000,
            ids=rng.integers(1, 2**32, 6).tolist(),
            values=values,
        )
        offsets[partition] += 1
        records.append(Given(partition, time_ms, one.SerializeToString()))
    return records + closing(partitions, T0_MS + int(span_s * 1000) + 10_000)


def closing(partitions: int, time_ms: int) -> list[Given]:
    """A tick for each partition."""
    return [Given(partition, time_ms, tick().SerializeToString()) for partition in range(partitions)]


@dataclass(frozen=True)
class ExamplesTopic:
    """A topic in which records keep the time that the producer gives them, so that a test needs no real minutes."""

    bootstrap: str
    prefix: str
    partitions: int

    @property
    def name(self) -> str:
        return f"{self.prefix}examples"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}dead-letters"

    async def create(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
            await admin.create_topics([NewTopic(self.name, self.partitions, 1, topic_configs=config)])
            await admin.create_topics([NewTopic(self.dead_letters, self.partitions, 1)])
        finally:
            await admin.close()

    async def forget(self, before: Mapping[int, int]) -> None:
        """Delete what stands before these offsets, as retention does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.delete_records(
                {TopicPartition(self.name, partition): RecordsToDelete(offset) for partition, offset in before.items()}
            )
        finally:
            await admin.close()

    async def send(self, records: Iterable[Given]) -> None:
        """Write records in this order; returns when all are acknowledged."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", max_batch_size=128 * 1024)
        await producer.start()
        try:
            waiting = [
                await producer.send(self.name, each.value, b"u1", each.partition, each.time_ms) for each in records
            ]
            for each in waiting:
                await each
        finally:
            await producer.stop()
