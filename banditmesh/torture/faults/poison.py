"""Records that nobody can use, in every partition of every topic."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from aiokafka import AIOKafkaProducer

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.torture.oracle import SILENT, Finding
from banditmesh.torture.scene import Scene
from banditmesh.torture.world import PARTITIONS

_GARBAGE: Final = (b"\xff\xffpoison", b"", b"\x0a", bytes(range(256)) * 400)
_DECISION: Final = events_pb2.Decision(
    impression_id=bytes(16), user_id="u1", placement="home", service="weather", content_id="c", propensity=0.5
)


async def everywhere(scene: Scene) -> None:
    """Bytes that are no message, and messages that make no sense, in every partition of all five topics."""
    producer = AIOKafkaProducer(bootstrap_servers=scene.world.bootstrap, max_request_size=1 << 20)
    await producer.start()
    try:
        for topic in ("impressions", "reactions", "examples", "late-reactions", "dead-letters"):
            values = [*_GARBAGE, *_nonsense(topic)]
            scene.note(f"{len(values)} poisoned records in each partition of {topic}")
            for partition in range(PARTITIONS):
                for value in values:
                    at = await producer.send_and_wait(topic, value, key=b"poison", partition=partition)
                    scene.evidence.poisoned.add((topic, partition, at.offset))
            await scene.sleep(0.3)
    finally:
        await producer.stop()
    listed = await asyncio.to_thread(_list_dead_letters, scene.world.bootstrap)
    if listed.returncode != 0:
        scene.findings.append(Finding(SILENT, "banditmesh dead-letters", listed.stderr[-300:]))


def _nonsense(topic: str) -> Iterator[bytes]:
    """Messages that can be read and make no sense."""
    if topic in ("impressions", "reactions", "late-reactions"):
        message = events_pb2.Impression() if topic == "impressions" else events_pb2.Reaction(click=events_pb2.Click())
        for version, decision in (
            (1, None),
            (0, _DECISION),
            (1, events_pb2.Decision(impression_id=b"abc", user_id="u1")),
            (1, events_pb2.Decision(impression_id=bytes(16))),
        ):
            message.schema_version = version
            message.ClearField("decision")
            if decision is not None:
                message.decision.CopyFrom(decision)
            yield message.SerializeToString()
    if topic in ("reactions", "late-reactions"):
        for weight in (float("nan"), float("inf"), -1.0):
            target = events_pb2.TargetAction(name="purchase", weight=weight)
            yield events_pb2.Reaction(schema_version=1, decision=_DECISION, target=target).SerializeToString()
        dwell = events_pb2.Dwell(seconds=1e9)
        yield events_pb2.Reaction(schema_version=1, decision=_DECISION, dwell=dwell).SerializeToString()
    if topic == "examples":
        source = events_pb2.Source(partition=0, offset=1 << 40)
        for reward, outcome, said in (
            (float("nan"), events_pb2.OUTCOME_CLICK, source),
            (1e30, events_pb2.OUTCOME_CLICK, source),
            (1.0, events_pb2.OUTCOME_UNSPECIFIED, source),
            (1.0, events_pb2.OUTCOME_CLICK, None),
        ):
            joined = events_pb2.JoinedImpression(decision=_DECISION, outcome=outcome, reward=reward)
            yield events_pb2.Example(schema_version=1, source=said, joined=joined).SerializeToString()


def _list_dead_letters(kafka: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "banditmesh.cli", "dead-letters", "--kafka", kafka, "--json"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
