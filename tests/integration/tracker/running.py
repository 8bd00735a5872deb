"""A tracker in this process, on a free port, and what it wrote."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord
from pydantic import SecretStr

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.clock import SystemClock
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.token import KeyRing
from services.tracker.bootstrap import bootstrap
from services.tracker.settings import TrackerSettings

TOKEN_KEYS = "1:" + "0a" * 32
KEYS = KeyRing.parse(TOKEN_KEYS)
PARTITIONS = 4
MESH = """
services: {{comics: {{logics: [new]}}}}
placements: {{head: {{sources: [comics/new], rewards: {{targets: {{purchase: 3.0}}}}}}}}
kafka: {{topic_prefix: "{prefix}", partitions: {partitions}}}
"""
_numbers = itertools.count()


@asynccontextmanager
async def running_tracker(
    folder: Path, bootstrap_servers: str, prefix: str, *, ack_timeout_s: float = 5.0
) -> AsyncIterator[Server]:
    """A tracker that serves on 127.0.0.1 until the block ends."""
    config = folder / "mesh.yaml"
    config.write_text(MESH.format(prefix=prefix, partitions=PARTITIONS))
    settings = TrackerSettings(
        config=config,
        kafka=KafkaAddress.parse(bootstrap_servers),
        token_keys=SecretStr(TOKEN_KEYS),
        ack_timeout_s=ack_timeout_s,
    )
    server = Server(ServerOptions(grace_s=1.0))
    try:
        await bootstrap(settings, server)
        await server.start()
        yield server
    finally:
        await server.stop()


def decision(user: str = "u", *, keys: KeyRing = KEYS, age_s: float = 0.0) -> tuple[bytes, bytes]:
    """(impression id, token) of a new decision."""
    impression_id = next(_numbers).to_bytes(16, "big")
    body = events_pb2.Decision(
        impression_id=impression_id,
        user_id=user,
        placement="head",
        service="comics",
        content_id="c-1",
        decided_at_ms=int((SystemClock().now_s() - age_s) * 1000),
        features=events_pb2.Features(ids=range(30)),
    )
    return impression_id, keys.sign(body)


def shown(token: bytes) -> tracker_pb2.Event:
    """An impression."""
    return tracker_pb2.Event(impression_token=token, shown=tracker_pb2.Shown())


async def records_of(bootstrap_servers: str, topic: str) -> list[ConsumerRecord[bytes, bytes]]:
    """Everything in a topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        found: list[ConsumerRecord[bytes, bytes]] = []
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=1000)).values():
                found += batch
        return found
    finally:
        await consumer.stop()
