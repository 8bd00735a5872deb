"""The local Kafka."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from banditmesh.local.kafka import Kafka
from banditmesh.local.process import DidNotStart

TOPIC = "greetings"


async def create_topic(kafka: Kafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 1, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})])
    await admin.close()


async def produce(kafka: Kafka, value: bytes, *, transactional_id: str | None = None) -> int:
    """Send one value; answers the broker's time in ms."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, acks="all", enable_idempotence=True, transactional_id=transactional_id
    )
    await producer.start()
    if transactional_id:
        async with producer.transaction():
            sent = await producer.send_and_wait(TOPIC, value, timestamp_ms=1)
    else:
        sent = await producer.send_and_wait(TOPIC, value, timestamp_ms=1)
    await producer.stop()
    return int(sent.timestamp)


async def consume(kafka: Kafka, n: int) -> list[bytes]:
    """The topic's first n committed values."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, isolation_level="read_committed")
    consumer.assign([TopicPartition(TOPIC, 0)])
    await consumer.start()
    await consumer.seek_to_beginning()
    values = [(await consumer.getone()).value for _ in range(n)]
    await consumer.stop()
    return values


@pytest.mark.timeout(400)  # three starts, which take a minute together on a machine at a load of 20
async def test_it_keeps_plain_and_transactional_records_over_a_kill_and_stamps_its_own_time(tmp_path: Path) -> None:
    with Kafka(tmp_path) as kafka:
        address = kafka.bootstrap
        before_ms = time.time() * 1000 - 1
        await create_topic(kafka)
        assert await produce(kafka, b"plain") >= before_ms
        assert await produce(kafka, b"transactional", transactional_id="t") >= before_ms
        kafka.kill()
        kafka.start()
        assert kafka.bootstrap == address
        # Without the fencing this hangs only every second time, when the commit's markers were not yet written.
        assert "Fencing broker 1" in (tmp_path / "fencing.log").read_text()
        assert await consume(kafka, 2) == [b"plain", b"transactional"]
    with pytest.raises(ProcessLookupError):
        os.killpg(kafka.pid, 0)


def test_a_port_that_was_asked_for_and_is_taken_is_named(kafka: Kafka, tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match=f"kafka did not start: address already in use: {kafka.bootstrap}"):
        Kafka(tmp_path, ports_wanted=kafka.ports).start()


def test_a_folder_of_another_node_is_told_in_kafkas_own_words(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=AAAAAAAAQACAAAAAAAAAAA\n")
    with pytest.raises(DidNotStart, match="exited with code 1") as caught:
        Kafka(tmp_path).start()
    assert "Stored node id 7" in caught.value.log_end


def test_it_creates_no_topic_by_itself(kafka: Kafka) -> None:
    assert "auto.create.topics.enable=false" in (kafka.folder / "server.properties").read_text()
