"""Servers on one core, whatever is measured alone on another, and the records that go through it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.local.server import Command
from banditmesh.local.service import Process
from banditmesh.local.valkey import Valkey
from banditmesh.runtime.kafka.topics import Topics, ensure_topics, partition_of

PARTITIONS = 4
FEATURES = 30
CORES = sorted(os.sched_getaffinity(0))
MEASURED = CORES[-1]
"""The core of what is measured; servers and load generators have the others."""
OTHERS = ",".join(map(str, CORES[:-1] or CORES))
MESH = """
services: {{films: {{logics: [similar]}}}}
placements:
  home:
    sources: [films/similar]
    experiment: {{variants: {{learned: {{weight: 1, policy: {policy}}}}}}}
    fallback: none
kafka: {{topic_prefix: "{prefix}", partitions: 4}}
join: {{window: {window}, tick_every: 200ms}}
learning: {{snapshot_every: {snapshot_every}}}
"""


class Pinned(Process):
    """A service on the measured core."""

    start_timeout_s = 90.0

    def _command(self) -> Command:
        plain = super()._command()
        return Command(["taskset", "-c", str(MEASURED), *plain.argv], plain.env)


@dataclass
class Stage:
    """Servers, and a folder."""

    folder: Path
    kafka: Kafka
    redis: Valkey

    def mesh(self, *, policy: str = "{linucb: {arm: content}}", window: str = "1s", snapshot_every: str = "1s") -> Run:
        """A mesh of its own, with its own topics; Redis is emptied."""
        prefix = f"b{secrets.token_hex(3)}-"
        config = self.folder / f"{prefix}mesh.yaml"
        config.write_text(MESH.format(prefix=prefix, policy=policy, window=window, snapshot_every=snapshot_every))
        self.redis.command("FLUSHALL")
        topics = Topics.named(prefix)
        asyncio.run(ensure_topics(self.kafka.bootstrap, topics, partitions=PARTITIONS, replication=1))
        return Run(self, config, topics, prefix)


@dataclass
class Run:
    """One measurement's mesh."""

    stage: Stage
    config: Path
    topics: Topics
    prefix: str

    def service(self, name: str, **env: str) -> Pinned:
        """A service of it, not started yet."""
        settings = {
            "BANDITMESH_CONFIG": str(self.config),
            "BANDITMESH_KAFKA": self.stage.kafka.bootstrap,
            "BANDITMESH_REDIS": self.stage.redis.url,
            "BANDITMESH_STORE": (self.stage.folder / f"{self.prefix}store").as_uri(),
            **env,
        }
        folder = self.stage.folder / f"{self.prefix}{name}"
        return Pinned(name, folder, logs=folder, argv=[f"services.{name}"], env=settings)

    def bare(self, what: str, *arguments: object) -> dict[str, float]:
        """Run a program of :mod:`benchmarks.stream.bare` on the measured core; its figures."""
        argv = ["taskset", "-c", str(MEASURED), sys.executable, "-m", "benchmarks.stream.bare", what]
        argv += [self.stage.kafka.bootstrap, *map(str, arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Kafka and Valkey, running; this process and they leave the measured core alone."""
    os.sched_setaffinity(0, CORES[:-1] or CORES)
    with ExitStack() as stack:
        kafka = stack.enter_context(Kafka(folder / "kafka", heap_mb=512))
        redis = stack.enter_context(Valkey(folder / "redis"))
        for pid in (kafka.pid, redis.pid):
            subprocess.run(["taskset", "-a", "-c", "-p", OTHERS, str(pid)], capture_output=True, check=True)
        yield Stage(folder, kafka, redis)


def decisions(count: int, users: int = 20_000, seed: int = 1) -> Iterator[events_pb2.Decision]:
    """Decisions as an engine makes them: 30 hashed features, names of usual length."""
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 1 << 32, (997, FEATURES), dtype=np.uint64).tolist()
    of = rng.integers(0, users, count).tolist()
    for number, user in enumerate(of):
        yield events_pb2.Decision(
            impression_id=number.to_bytes(8, "big") + secrets.token_bytes(8),
            user_id=f"user-{user:08d}",
            placement="home",
            service="films",
            content_id=f"content-{number % 1000}",
            logic="similar",
            variant="learned",
            model="linucb-0a1b2c3d",
            model_version=17,
            propensity=0.125,
            features=events_pb2.Features(ids=features[number % 997]),
            decided_at_ms=1_700_000_000_000,
            origin=events_pb2.ORIGIN_POLICY,
        )


Value = tuple[bytes, bytes]
"""Key and value of a record."""


def impressions(count: int) -> list[Value]:
    """Records of topic ``impressions``."""
    return [
        (each.user_id.encode(), events_pb2.Impression(schema_version=1, decision=each).SerializeToString())
        for each in decisions(count)
    ]


def clicks(shown: Iterable[Value]) -> list[Value]:
    """A click on every third of them."""
    found = []
    for key, value in list(shown)[::3]:
        decision = events_pb2.Impression.FromString(value).decision
        decision.ClearField("features")
        reaction = events_pb2.Reaction(schema_version=1, decision=decision, click=events_pb2.Click())
        found.append((key, reaction.SerializeToString()))
    return found


def examples(count: int) -> list[Value]:
    """Records of topic ``examples``, a third of them clicked; the source is that of the place they will have."""
    found: list[Value] = []
    places = [0] * PARTITIONS
    for number, each in enumerate(decisions(count)):
        key = each.user_id.encode()
        partition = partition_of(key, PARTITIONS)
        clicked = number % 3 == 0
        joined = events_pb2.JoinedImpression(
            decision=each,
            outcome=events_pb2.OUTCOME_CLICK if clicked else events_pb2.OUTCOME_NONE,
            reward=1.0 if clicked else 0.5,
            impression_time_ms=1_700_000_000_000 + number,
        )
        source = events_pb2.Source(partition=partition, offset=places[partition], log=1)
        places[partition] += 1
        found.append((key, events_pb2.Example(schema_version=1, source=source, joined=joined).SerializeToString()))
    return found


async def write(kafka: str, topic: str, values: Iterable[Value]) -> None:
    """Write records, in batches, as fast as it goes."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks=1, max_batch_size=256 * 1024)
    await producer.start()
    try:
        batches = [producer.create_batch() for _ in range(PARTITIONS)]
        for key, value in values:
            partition = partition_of(key, PARTITIONS)
            if batches[partition].append(key=key, value=value, timestamp=None) is None:
                await producer.send_batch(batches[partition], topic, partition=partition)
                batches[partition] = producer.create_batch()
                batches[partition].append(key=key, value=value, timestamp=None)
        for partition, batch in enumerate(batches):
            if batch.record_count():
                await (await producer.send_batch(batch, topic, partition=partition))
        await producer.flush()
    finally:
        await producer.stop()


async def write_ticks(kafka: str, topic: str) -> None:
    """Let time go on in every partition of ``examples``, as an idle joiner does."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    tick = events_pb2.Example(schema_version=1, tick=events_pb2.Tick()).SerializeToString()
    await producer.start()
    try:
        for partition in range(PARTITIONS):
            await producer.send_and_wait(topic, tick, b"", partition=partition)
    finally:
        await producer.stop()


def metrics(process: Process) -> Mapping[str, float]:
    """What it counts, labels and all."""
    with urllib.request.urlopen(process.metrics_url, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def total(found: Mapping[str, float], name: str) -> float:
    """The sum over all labels."""
    return sum(value for key, value in found.items() if key == name or key.startswith(name + "{"))


def rss_mb(pid: int) -> float:
    """Resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def percentile(values: Iterable[float], q: float) -> float:
    """Of measured times."""
    return float(np.percentile(np.fromiter(values, np.float64), q))


Figures = dict[str, Any]
