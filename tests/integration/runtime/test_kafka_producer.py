"""The producer on a real broker: acknowledged or refused in time, also when the broker hangs."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from structlog.testing import capture_logs

from banditmesh.local import ports
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.errors import InvalidArgument, Unavailable
from banditmesh.runtime.kafka.producer import Acked, Producer, ProducerLimits, Record
from banditmesh.runtime.kafka.sizes import MAX_RECORD_BYTES
from banditmesh.runtime.kafka.topics import Topics, ensure_topics, partition_of
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from tests.support.topic_settings import set_most_bytes

PARTITIONS = 3
TOPICS = Topics.named()


@pytest.fixture
async def topic(kafka: Kafka, fresh_topic_prefix: str) -> str:
    topics = Topics.named(fresh_topic_prefix)
    await ensure_topics(kafka.bootstrap, topics, partitions=PARTITIONS, replication=1)
    return topics.impressions


@pytest.fixture
async def producer(kafka: Kafka) -> AsyncIterator[Producer]:
    producer = Producer(kafka.bootstrap)
    yield producer
    await producer.stop()


@contextmanager
def hanging(broker: Kafka) -> Iterator[None]:
    """A broker whose connections stand and that answers nothing."""
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


async def values_of(kafka: Kafka, topic: str, partition: int) -> list[tuple[int, bytes | None, int]]:
    """(offset, value, broker's time) of all records of a partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    await consumer.start()
    try:
        at = TopicPartition(topic, partition)
        consumer.assign([at])
        await consumer.seek_to_beginning()
        end = (await consumer.end_offsets([at]))[at]
        found: list[tuple[int, bytes | None, int]] = []
        while await consumer.position(at) < end:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [(record.offset, record.value, record.timestamp) for record in records]
        return found
    finally:
        await consumer.stop()


async def test_an_acknowledgement_says_where_and_when_the_record_was_written(
    producer: Producer, kafka: Kafka, topic: str
) -> None:
    acked = await producer.send(topic, b"u", b"v")
    assert acked.partition == partition_of(b"u", PARTITIONS)
    assert await values_of(kafka, topic, acked.partition) == [(acked.offset, b"v", acked.timestamp_ms)]


async def test_records_of_one_partition_keep_their_order(producer: Producer, kafka: Kafka, topic: str) -> None:
    values = [b"%d" % number for number in range(2000)]
    acked = await producer.send_many([Record(topic, b"", value, partition=1) for value in values])
    assert [each.offset for each in acked] == list(range(2000))
    assert [value for _, value, _ in await values_of(kafka, topic, 1)] == values


async def test_callers_that_share_batches_are_told_where_each_of_their_records_stands(
    producer: Producer, kafka: Kafka, topic: str
) -> None:
    calls = [
        [Record(topic, b"u%d" % (n % 9), b"%d %d " % (call, n) + bytes(900)) for n in range(60)] for call in range(8)
    ]
    acked = await asyncio.gather(*(producer.send_many(records) for records in calls))
    told = {
        (at.partition, at.offset, at.timestamp_ms): record.value
        for records, places in zip(calls, acked, strict=True)
        for record, at in zip(records, places, strict=True)
    }
    assert told == {
        (partition, offset, time_ms): value
        for partition in range(PARTITIONS)
        for offset, value, time_ms in await values_of(kafka, topic, partition)
    }


async def test_nothing_is_in_flight_once_all_is_acknowledged(producer: Producer, topic: str) -> None:
    await asyncio.gather(*(producer.send(topic, b"u", b"v") for _ in range(50)))
    assert (producer.records_in_flight, producer.bytes_in_flight) == (0, 0)


@pytest.mark.parametrize("limits", [ProducerLimits(max_records=10), ProducerLimits(max_bytes=10 * 310)])
async def test_what_does_not_fit_beside_what_is_waiting_is_refused_at_once(
    kafka: Kafka, topic: str, limits: ProducerLimits
) -> None:
    producer = Producer(kafka.bootstrap, limits=limits)
    waiting = asyncio.create_task(producer.send_many([Record(topic, b"u", b"v")] * 6))
    await asyncio.sleep(0)  # one turn: the records are in flight
    with pytest.raises(Unavailable, match="6 records of") as full:
        await producer.send_many([Record(topic, b"u", b"v")] * 5)
    assert full.value.retry_after_s == limits.retry_after_s
    assert len(await waiting) == 6
    await producer.stop()


async def test_a_record_that_is_too_large_is_refused_and_disturbs_nobody(producer: Producer, topic: str) -> None:
    with pytest.raises(InvalidArgument, match="more than it takes"):
        await producer.send_many([Record(topic, b"u", b"v"), Record(topic, b"u", bytes(MAX_RECORD_BYTES))])
    assert producer.records_in_flight == 0
    assert await producer.send(topic, b"u", bytes(MAX_RECORD_BYTES - 1))


async def test_a_topic_that_takes_less_than_before_gets_smaller_messages_and_one_that_never_fits_is_refused(
    kafka: Kafka, producer: Producer, topic: str
) -> None:
    await producer.start()
    await set_most_bytes(kafka.bootstrap, 4000, topic, unread=topic.replace("impressions", "decisions"))
    small, large = Record(topic, b"u", bytes(300), 0), Record(topic, b"u", bytes(5000), 0)

    async def sent(records: list[Record]) -> list[Acked]:
        while True:  # as an app does that is told to send again
            try:
                return await producer.send_many(records)
            except Unavailable:
                pass

    assert len(await sent([small] * 100)) == 100
    with pytest.raises(InvalidArgument, match="has 5001 bytes, more than it takes"):
        await sent([small, large])
    assert len(await sent([small])) == 1


async def test_a_cancelled_caller_disturbs_nobody(producer: Producer, topic: str) -> None:
    await producer.start()
    gone = asyncio.create_task(producer.send(topic, b"u", b"gone"))
    stays = asyncio.create_task(producer.send(topic, b"u", b"stays"))
    await asyncio.sleep(0)  # one turn: both are in flight
    gone.cancel()
    assert isinstance(await stays, Acked)
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_stop_waits_for_what_is_on_its_way_and_refuses_the_rest(kafka: Kafka, topic: str) -> None:
    producer = Producer(kafka.bootstrap)
    await producer.start()
    waiting = asyncio.create_task(producer.send(topic, b"u", b"v"))
    await asyncio.sleep(0)  # one turn: it is in flight
    await producer.stop()
    assert isinstance(await waiting, Acked)
    with pytest.raises(Unavailable, match="stopping"):
        await producer.send(topic, b"u", b"v")


async def test_a_kafka_that_is_not_there_is_unavailable_and_not_asked_again_at_once() -> None:
    (port,) = ports.free(1)
    producer = Producer(f"127.0.0.1:{port}")
    with pytest.raises(Unavailable, match="cannot be reached: connection refused") as first:
        await producer.start()
    with pytest.raises(Unavailable, match="the last connection failed") as second:
        await producer.send("t", b"u", b"v")
    assert first.value.retry_after_s == 0.5
    assert 0 < (second.value.retry_after_s or 0) <= 0.5
    await producer.stop()


@pytest.fixture
async def own_broker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Kafka]:
    """A broker to hang and to kill. At the end nothing is left of the producers, not even an error that nobody saw."""
    caplog.set_level(logging.CRITICAL, logger="aiokafka")  # a captured record keeps what it is about alive
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unseen.append(context))
    with Kafka(tmp_path) as broker:
        await ensure_topics(broker.bootstrap, TOPICS, partitions=PARTITIONS, replication=1)
        yield broker
        gc.collect()
        assert unseen == []
        assert asyncio.all_tasks() == {asyncio.current_task()}


CLIENTS_OWN_PATIENCE_S = 30.0
"""aiokafka alone would wait for 40 s and more: whoever ends before that has kept a deadline of ours."""


async def refusals(producer: Producer, count: int) -> list[Unavailable]:
    """What that many callers are told, each of whom is refused."""
    sends = (producer.send(TOPICS.impressions, b"u%d" % number, b"v") for number in range(count))
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in results), results
    return [each for each in results if isinstance(each, Unavailable)]


async def test_a_broker_that_hangs_costs_no_more_than_the_deadline_and_is_found_again(own_broker: Kafka) -> None:
    producer = Producer(own_broker.bootstrap, limits=ProducerLimits(ack_timeout_s=1.0, retry_after_s=0.0))
    await producer.ping()
    with hanging(own_broker), capture_logs() as logs:
        async with asyncio.timeout(CLIENTS_OWN_PATIENCE_S):
            with pytest.raises(Unavailable, match=r"within 0\.2 s"):
                await producer.send_many([Record(TOPICS.impressions, b"u", b"hasty")], timeout_s=0.2)
            assert producer.records_in_flight == 1  # given up by its caller, still on its way
            await refusals(producer, 20)
        assert (producer.records_in_flight, producer.bytes_in_flight) == (0, 0)
        assert [line["event"] for line in logs if line["log_level"] != "debug"] == ["dependency down"]
    assert isinstance(await producer.send(TOPICS.impressions, b"u", b"after"), Acked)
    await producer.stop()


async def test_a_broker_that_died_costs_no_more_than_the_deadline_and_is_found_again(own_broker: Kafka) -> None:
    producer = Producer(own_broker.bootstrap, limits=ProducerLimits(ack_timeout_s=1.0, retry_after_s=0.0))
    await producer.ping()
    own_broker.kill()
    async with asyncio.timeout(CLIENTS_OWN_PATIENCE_S):
        await refusals(producer, 20)
    with pytest.raises(Unavailable):
        await producer.ping()
    await asyncio.to_thread(own_broker.start)
    assert isinstance(await producer.send(TOPICS.impressions, b"u", b"after"), Acked)
    await producer.stop()


async def test_a_transaction_that_a_hanging_broker_cuts_short_leaves_no_exception_that_nobody_looks_at(
    own_broker: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banditmesh.runtime.kafka.transaction.COMMIT_DEADLINE_S", 1.0)
    records = [Record(TOPICS.examples, b"u", b"x" * 100, partition) for partition in range(PARTITIONS)]
    transactions = await TransactionalProducer.open(own_broker.bootstrap, "joiner")
    await transactions.write(records)
    with hanging(own_broker):
        with pytest.raises(Unavailable):
            await transactions.write(records)
        await transactions.close()


async def test_a_stop_while_kafka_is_away_ends_in_time(own_broker: Kafka) -> None:
    producer = Producer(own_broker.bootstrap, limits=ProducerLimits(ack_timeout_s=60.0))
    await producer.ping()
    own_broker.kill()
    waiting = asyncio.create_task(producer.send(TOPICS.impressions, b"u", b"v"))
    await asyncio.sleep(0)  # one turn: it is in flight
    async with asyncio.timeout(CLIENTS_OWN_PATIENCE_S):
        await producer.stop(deadline_s=0.2)
    with pytest.raises(Unavailable):
        await waiting


async def test_a_topic_that_keeps_the_producers_time_is_named_once(kafka: Kafka, fresh_topic_prefix: str) -> None:
    name = f"{fresh_topic_prefix}impressions"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1, topic_configs={"message.timestamp.type": "CreateTime"})])
    await admin.close()
    producer = Producer(kafka.bootstrap, limits=ProducerLimits(ack_timeout_s=20.0, connect_timeout_s=20.0))
    with capture_logs() as logs:
        await producer.send(name, b"u", b"1", 0)
        await producer.send(name, b"u", b"2", 0)
    await producer.stop()
    (said,) = [line for line in logs if line["log_level"] == "error"]
    assert said["topic"] == name
    assert "LogAppendTime" in said["hint"]
