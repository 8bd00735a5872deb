"""``banditmesh dead-letters`` on a real broker."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest
from aiokafka import AIOKafkaProducer

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local import ports
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from tests.support.command import banditmesh

LETTERS = [
    events_pb2.DeadLetter(
        topic="impressions", partition=1, offset=offset, value=b"\xff\x00", consumer="joiner", reason="no_protobuf"
    )
    for offset in range(3)
]


@pytest.fixture
async def prefix(kafka: Kafka, fresh_topic_prefix: str) -> str:
    """Topics that exist and are empty."""
    await ensure_topics(kafka.bootstrap, Topics.named(fresh_topic_prefix), partitions=2, replication=1)
    return fresh_topic_prefix


async def write(kafka: Kafka, prefix: str, *values: bytes | None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(Topics.named(prefix).dead_letters, value, b"u", partition=0)
    finally:
        await producer.stop()


def dead_letters(kafka: Kafka, prefix: str, *words: str) -> subprocess.CompletedProcess[str]:
    return banditmesh("dead-letters", "--kafka", kafka.bootstrap, "--prefix", prefix, *words)


async def test_each_letter_is_a_row_with_where_it_came_from_and_why(kafka: Kafka, prefix: str) -> None:
    await write(kafka, prefix, *(letter.SerializeToString() for letter in LETTERS))
    run = dead_letters(kafka, prefix)
    assert run.returncode == 0
    assert [f"impressions/1@{offset}" in run.stdout for offset in range(4)] == [True, True, True, False]
    assert run.stdout.count("no_protobuf") == 3


async def test_as_json_each_letter_is_a_line_with_its_bytes(kafka: Kafka, prefix: str) -> None:
    await write(kafka, prefix, *(letter.SerializeToString() for letter in LETTERS))
    rows = [json.loads(line) for line in dead_letters(kafka, prefix, "--json", "--last", "2").stdout.splitlines()]
    assert [row["offset"] for row in rows] == ["1", "2"]
    assert {base64.b64decode(row["value"]) for row in rows} == {b"\xff\x00"}


async def test_what_is_no_dead_letter_itself_is_shown_all_the_same(kafka: Kafka, prefix: str) -> None:
    await write(kafka, prefix, b"\xff\xff", LETTERS[0].SerializeToString())
    rows = [json.loads(line) for line in dead_letters(kafka, prefix, "--json").stdout.splitlines()]
    assert [row["reason"] for row in rows] == ["no_dead_letter", "no_protobuf"]


async def test_a_record_without_a_value_is_shown_as_one(kafka: Kafka, prefix: str) -> None:
    await write(kafka, prefix, None, b"", LETTERS[0].SerializeToString())
    rows = [json.loads(line) for line in dead_letters(kafka, prefix, "--json").stdout.splitlines()]
    assert [row["reason"] for row in rows] == ["no_dead_letter", "no_dead_letter", "no_protobuf"]
    assert rows[0]["detail"] == "it has no value"
    assert "no_dead_letter" in dead_letters(kafka, prefix).stdout


async def test_that_there_are_none_is_said(kafka: Kafka, prefix: str) -> None:
    assert "There are no dead letters." in dead_letters(kafka, prefix).stdout


def test_a_topic_that_does_not_exist_is_an_error_that_says_what_to_look_at(kafka: Kafka) -> None:
    run = dead_letters(kafka, "nobody-")
    assert run.returncode == 1
    assert "there is no topic 'nobody-dead-letters'" in run.stderr
    assert "--prefix is kafka.topic_prefix of mesh.yaml" in run.stderr


def test_a_kafka_that_is_not_there_is_one_line(kafka: Kafka) -> None:
    where = f"127.0.0.1:{ports.free(1)[0]}"
    run = banditmesh("dead-letters", "--kafka", where)
    assert run.returncode == 1
    said = f"banditmesh: Kafka at {where} cannot be reached: connection refused, nothing listens there; see --kafka"
    assert run.stderr.startswith(said)
    assert len(run.stderr.splitlines()) == 1
