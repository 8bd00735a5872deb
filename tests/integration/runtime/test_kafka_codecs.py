"""Topics that their operator has compressed, and producers that compress by themselves."""

from __future__ import annotations

import asyncio
from types import MappingProxyType

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError

from banditmesh.local.kafka import Kafka
from banditmesh.runtime.kafka.consumer import KafkaSource
from banditmesh.runtime.kafka.producer import Producer, Record
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from banditmesh.runtime.outages import outages
from services.learner.reader import KafkaReader, Known

CODECS = ["gzip", "snappy", "lz4", "zstd"]
VALUES = [bytes([number % 7]) * 500 for number in range(40)]


async def read_by_group(kafka: Kafka, topic: str, n: int) -> list[bytes]:
    """As the joiner reads."""
    source = KafkaSource(kafka.bootstrap, topic, f"{topic}-group", client_id="test")
    assigned: asyncio.Future[frozenset[int]] = asyncio.get_running_loop().create_future()

    async def nothing() -> None:
        pass

    await source.start(assigned.set_result, nothing)
    await assigned
    source.seek(0, 0)
    source.resume(0)
    values: list[bytes] = []
    try:
        async with asyncio.timeout(30):
            while len(values) < n:
                values += [record.value for record in (await source.fetch(0.2)).get(0, [])]
    finally:
        await source.stop()
    return values


async def read_alone(
    kafka: Kafka, topic: str, n: int, known: Known = MappingProxyType({}), look_back: int = 0
) -> list[bytes]:
    """As the learner reads."""
    values: list[bytes] = []
    opened = KafkaReader(kafka.bootstrap, topic, f"{topic}-reader", known, look_back=look_back)
    async with opened as reader, asyncio.timeout(30):
        while len(values) < n:
            values += [record.value for record in (await reader.read([0], 0.2)).get(0, [])]
    return values


@pytest.mark.parametrize("codec", CODECS)
async def test_a_topic_that_the_broker_compresses_is_written_and_read(
    kafka: Kafka, fresh_topic_prefix: str, codec: str
) -> None:
    topics = Topics.named(fresh_topic_prefix)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    settings = {"compression.type": codec, "message.timestamp.type": "LogAppendTime"}
    await admin.create_topics([NewTopic(name, 1, 1, topic_configs=settings) for name in topics])
    await admin.close()
    await ensure_topics(kafka.bootstrap, topics, partitions=1, replication=1)

    producer = Producer(kafka.bootstrap)
    await producer.send_many([Record(topics.impressions, b"u", value, 0) for value in VALUES])
    await producer.stop()
    transactions = await TransactionalProducer.open(kafka.bootstrap, f"{fresh_topic_prefix}0")
    await transactions.write([Record(topics.examples, b"u", value, 0) for value in VALUES])
    await transactions.close()

    assert await read_by_group(kafka, topics.impressions, len(VALUES)) == VALUES
    assert await read_alone(kafka, topics.examples, len(VALUES)) == VALUES


async def test_a_reader_that_looks_back_begins_before_its_position(kafka: Kafka, fresh_topic_prefix: str) -> None:
    topic = Topics.named(fresh_topic_prefix).impressions
    await ensure_topics(kafka.bootstrap, Topics.named(fresh_topic_prefix), partitions=1, replication=1)
    producer = Producer(kafka.bootstrap)
    await producer.send_many([Record(topic, b"u", value, 0) for value in VALUES])
    await producer.stop()
    known = {0: [(len(VALUES), 0)]}
    assert await read_alone(kafka, topic, 1, known, look_back=1) == VALUES[-1:]
    assert await read_alone(kafka, topic, len(VALUES), known, look_back=1000) == VALUES


async def test_kafka_is_back_for_a_reader_that_gets_records_though_it_does_not_ask_again_what_failed(
    kafka: Kafka, fresh_topic_prefix: str
) -> None:
    topic = Topics.named(fresh_topic_prefix).impressions
    await ensure_topics(kafka.bootstrap, Topics.named(fresh_topic_prefix), partitions=1, replication=1)
    async with KafkaReader(kafka.bootstrap, topic, f"{topic}-reader", {}) as reader:
        assert await reader.is_at_end(0)
        outages.failed("end of partition 0", KafkaConnectionError(), of="kafka")  # as is_at_end does
        producer = Producer(kafka.bootstrap)
        await producer.send_many([Record(topic, b"u", VALUES[0], 0)])
        await producer.stop()
        async with asyncio.timeout(30):
            while not await reader.read([0], 0.2):
                pass
    assert not outages.is_down("kafka")


@pytest.mark.parametrize("codec", CODECS)
async def test_what_a_foreign_producer_has_compressed_is_read(
    kafka: Kafka, fresh_topic_prefix: str, codec: str
) -> None:
    topics = Topics.named(fresh_topic_prefix)
    await ensure_topics(kafka.bootstrap, topics, partitions=1, replication=1)
    foreign = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=codec, linger_ms=50)
    await foreign.start()
    await asyncio.gather(*(foreign.send_and_wait(topics.impressions, value, b"u", 0) for value in VALUES))
    await foreign.stop()
    assert sorted(await read_by_group(kafka, topics.impressions, len(VALUES))) == sorted(VALUES)
    assert sorted(await read_alone(kafka, topics.impressions, len(VALUES))) == sorted(VALUES)
