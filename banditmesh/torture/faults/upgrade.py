"""A rolling upgrade: an older release beside a newer one, and records of kinds that the older does not know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaProducer

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.torture.forked import Prepare
from banditmesh.torture.scene import Scene
from banditmesh.torture.supervisor import Replica
from banditmesh.torture.world import PARTITIONS, READY_WITHIN_S

NEWER: Final = b"\xa2\x06\x03new"
"""Field 100, bytes: of a kind that no present release knows."""
OLD: Final = (("banditmesh.torture.older", "dwell"),)
TOO_EARLY_S: Final = 1.2
"""Less than the join window by more than the placement's own: what is sent meanwhile is closed afterwards."""


async def rolling(scene: Scene) -> None:
    """Joiners of a release that knows one kind of reaction less, beside newer ones; records of kinds nobody knows."""
    world, supervisor, traffic = scene.world, scene.world.supervisor, scene.traffic
    # As docs/operations.md wants it: readers first. Until all joiners know a kind, nobody sends it.
    traffic.without = frozenset({"dwell"})
    try:
        await scene.sleep(2 * max(world.windows_s.values()))
        joiners = supervisor.of("joiner")
        await _start_anew(scene, joiners[:1], OLD)
        scene.note("an older joiner beside a newer one")
        async with _producer(world.bootstrap) as producer:
            await _newer_kinds(scene, producer)
        await scene.sleep(3.0)
        # Somebody sends it too early: an older joiner keeps it for the newer one that closes the impression.
        await _start_anew(scene, joiners[1:], OLD)
        scene.note("all joiners are older; dwell is sent too early")
        traffic.without = frozenset()
        await scene.sleep(TOO_EARLY_S)
        await _start_anew(scene, joiners, [])
        scene.note("all joiners are newer")
    finally:
        traffic.without = frozenset()


@asynccontextmanager
async def _producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _start_anew(scene: Scene, joiners: Sequence[Replica], prepare: Prepare) -> None:
    for joiner in joiners:
        joiner.process.prepare = prepare
    await asyncio.gather(*(scene.kill(joiner) for joiner in joiners))
    await scene.world.supervisor.until_ready(joiners, READY_WITHIN_S)


async def _newer_kinds(scene: Scene, producer: AIOKafkaProducer) -> None:
    """Records whose kind stands in a field that nobody here knows."""
    scene.note("reactions, examples and impressions with fields of a newer release, in each partition")
    for partition in range(PARTITIONS):
        decision = events_pb2.Decision(impression_id=bytes([partition] * 16), user_id="u1", placement="home")
        reaction = events_pb2.Reaction(schema_version=2, decision=decision).SerializeToString() + NEWER
        await producer.send_and_wait("reactions", reaction, key=b"u1", partition=partition)
        source = events_pb2.Source(partition=partition, offset=1 << 40)
        example = events_pb2.Example(schema_version=2, source=source).SerializeToString() + NEWER
        await producer.send_and_wait("examples", example, key=b"u1", partition=partition)
