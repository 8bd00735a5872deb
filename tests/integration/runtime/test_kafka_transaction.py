"""Transactions that somebody else has fenced, and members of a group that are slow to let go."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from banditmesh.local.kafka import Kafka
from banditmesh.runtime.kafka.consumer import KafkaSource
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from banditmesh.runtime.stream import Fenced

PARTITIONS = 6


async def test_a_fenced_transaction_leaves_no_exception_that_nobody_looks_at(
    kafka: Kafka, fresh_topic_prefix: str
) -> None:
    topics = Topics.named(fresh_topic_prefix)
    await ensure_topics(kafka.bootstrap, topics, partitions=PARTITIONS, replication=1)
    forgotten: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: forgotten.append(context))
    records = [Record(topics.examples, b"u", b"x" * 100, partition) for partition in range(PARTITIONS)]

    old = await TransactionalProducer.open(kafka.bootstrap, fresh_topic_prefix)
    await old.write(records)
    new = await TransactionalProducer.open(kafka.bootstrap, fresh_topic_prefix)
    with pytest.raises(Fenced):
        await old.write(records)
    await old.close()
    await new.write(records)
    await new.close()
    del old, new
    gc.collect()
    assert forgotten == []


async def test_a_member_waits_for_another_to_let_go_for_longer_than_any_other_answer(
    kafka: Kafka, fresh_topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banditmesh.runtime.kafka.consumer._CALL_S", 0.5)
    topics = Topics.named(fresh_topic_prefix)
    await ensure_topics(kafka.bootstrap, topics, partitions=2, replication=1)
    one, other = (
        KafkaSource(kafka.bootstrap, topics.examples, fresh_topic_prefix, client_id=name, session_timeout_s=20.0)
        for name in ("one", "other")
    )
    joining: list[asyncio.Task[None]] = []
    still_waiting: list[bool] = []

    async def let_go_slowly() -> None:
        if joining:
            await asyncio.wait(joining, timeout=2.0)
            still_waiting.append(not joining[0].done())

    async def let_go() -> None:
        pass

    got: list[frozenset[int]] = []
    await one.start(got.append, let_go_slowly)
    joining.append(asyncio.create_task(other.start(got.append, let_go)))
    await joining[0]
    assert still_waiting[0]
    await one.stop()
    await other.stop()


async def test_what_becomes_of_the_topic_is_noticed_by_its_readers_within_seconds(
    kafka: Kafka, fresh_topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banditmesh.runtime.kafka.consumer._METADATA_AGE_S", 0.3)
    topics = Topics.named(fresh_topic_prefix)
    await ensure_topics(kafka.bootstrap, topics, partitions=1, replication=1)
    source = KafkaSource(kafka.bootstrap, topics.examples, fresh_topic_prefix, client_id="early")
    assigned: asyncio.Queue[frozenset[int]] = asyncio.Queue()

    async def let_go() -> None:
        pass

    await source.start(assigned.put_nowait, let_go)
    assert await assigned.get() == {0}
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_partitions({topics.examples: NewPartitions(2)})
    await admin.close()
    async with asyncio.timeout(20):
        while await assigned.get() != {0, 1}:
            pass
    await source.stop()


async def test_an_assignment_that_comes_after_the_membership_was_given_up_is_nobodys(
    kafka: Kafka, fresh_topic_prefix: str
) -> None:
    topics = Topics.named(fresh_topic_prefix)
    await ensure_topics(kafka.bootstrap, topics, partitions=2, replication=1)
    source = KafkaSource(kafka.bootstrap, topics.examples, fresh_topic_prefix, client_id="late")
    got: list[frozenset[int]] = []

    async def let_go() -> None:
        pass

    await source.start(got.append, let_go)
    await source.stop()
    assert len(got) == 1
    assert source._listener is not None
    await source._listener.on_partitions_assigned([TopicPartition(topics.examples, 0)])
    assert len(got) == 1
