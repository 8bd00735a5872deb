"""A learner whose Kafka is a list, for tests of its logic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.mesh import Mesh, parse_mesh
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import Store
from banditmesh.runtime.stream import Consumed
from services.learner.catalog import Catalog, ShardId
from services.learner.experiment_shard import ExperimentShard
from services.learner.experiments import Experiments
from services.learner.learner import Learner
from services.learner.metrics import LearnerMetrics
from services.learner.positions import Positions
from services.learner.publisher import Publisher
from services.learner.reader import Known
from services.learner.rollback import Rollback
from services.learner.shard import Shard
from tests.support.examples import Given

MESH = parse_mesh("""
services: {films: {logics: [similar]}}
placements:
  home:
    sources: [films/similar]
    experiment: {variants: {only: {weight: 1, policy: {linucb: {dimension: 4}}}}}
  elsewhere:
    sources: [films/similar]
    fallback: none
    experiment: {variants: {only: {weight: 1, policy: random}}}
  strict:
    sources: [films/similar]
    experiment: {variants: {only: {weight: 1, policy: {linear: {link: logit}}}}}
""")
CATALOG = Catalog(MESH)
LINUCB = CATALOG.find("home", "linucb")


@dataclass
class Topic:
    """The examples topic. A reader of it gives at most ``at_once`` records of a partition a time."""

    partitions: int
    at_once: int = 1000
    generation: int = 1
    """Another one: the topic was made anew."""
    answers: bool = True
    """Whether the broker answers."""
    says_ends: bool = True
    """Whether it answers where partitions end."""
    records: dict[int, list[Consumed]] = field(default_factory=dict)
    opened_at: list[dict[int, int]] = field(default_factory=list)
    """The positions that each reader was opened with."""
    slow: bool = False
    """Whether a reader that begins at the beginning gets nothing."""
    reported: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.records = {partition: [] for partition in range(self.partitions)}

    def append(self, given: Iterable[Given]) -> None:
        for partition, time_ms, value in given:
            partition_records = self.records[partition]
            partition_records.append(Consumed("examples", partition, len(partition_records), time_ms, b"u1", value))

    @asynccontextmanager
    async def open(self, known: Known) -> AsyncIterator[ListReader]:
        if not self.answers:
            raise Unavailable("Kafka is away")
        logs = {partition: self.generation * 100 + partition for partition in self.records}
        positions = {
            partition: min(offset if log in (0, logs[partition]) else 0 for offset, log in each)
            for partition, each in known.items()
        }
        self.opened_at.append(positions)
        yield ListReader(self, {partition: positions.get(partition, 0) for partition in self.records}, logs)


@dataclass
class ListReader:
    """A `Reader` of a `Topic`."""

    topic: Topic
    positions: dict[int, int]
    logs: dict[int, int]
    lost: int = 0

    async def read(self, partitions: Sequence[int], timeout_s: float) -> Mapping[int, Sequence[Consumed]]:
        await asyncio.sleep(0)
        if not self.topic.answers:
            raise Unavailable("Kafka is away")
        if self.topic.slow and not any(self.positions.values()):
            return {}
        found = {}
        for partition in partitions:
            start = self.positions[partition]
            if records := self.topic.records[partition][start : start + self.topic.at_once]:
                found[partition] = records
                self.positions[partition] += len(records)
        return found

    async def is_at_end(self, partition: int) -> bool:
        return self.topic.says_ends and self.positions[partition] == len(self.topic.records[partition])

    def lag(self) -> Mapping[int, int]:
        return {partition: len(self.topic.records[partition]) - next_ for partition, next_ in self.positions.items()}

    def grown(self) -> bool:
        return False

    def report(self, positions: Mapping[int, int]) -> None:
        self.topic.reported = dict(positions)


@dataclass
class Rig:
    """A learner and everything around it."""

    learner: Learner
    publisher: Publisher
    rollback: Rollback
    shards: Mapping[ShardId, Shard]
    snapshots: Snapshots
    clock: ManualClock
    registry: CollectorRegistry
    letters: list[tuple[Consumed, Unreadable]]
    experiments: Experiments
    tallies: Mapping[str, ExperimentShard]

    @property
    def linucb(self) -> Shard:
        return self.shards[LINUCB]

    @property
    def popularity(self) -> Shard:
        return self.shards[CATALOG.find("home", "popularity")]

    async def until(self, examples: int) -> None:
        """Wait until the LinUCB model has learned from so many examples."""
        while self.linucb.examples < examples:
            await self.turn()

    async def turn(self) -> None:
        """Wait until the loop has gone round once more; a loop that has died does not."""
        async with asyncio.timeout(5), self.learner.turned:
            await self.learner.turned.wait()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"banditmesh_learner_{name}", labels) or 0.0


@asynccontextmanager
async def rig(
    topic: Topic,
    store: Store,
    *,
    keep: int = 20,
    run: bool = True,
    counted: Mesh | None = None,
    cache: Path | None = None,
) -> AsyncIterator[Rig]:
    """A learner that has restored and, with ``run``, learns until the end of the block. It publishes when told to.

    Args:
        counted: Whose experiments it counts; None: none.
        cache: Of models; None: there is none.
    """
    clock, registry = ManualClock(), CollectorRegistry()
    metrics = LearnerMetrics(registry)
    shards = {shard_id: Shard(shard_id, spec, batch=16) for shard_id, spec in CATALOG.models.items()}
    snapshots = Snapshots(store, cache)
    placements = counted.placements if counted is not None else {}
    tallies = {name: ExperimentShard(name, batch=16) for name in placements}
    learned = [*shards.values(), *tallies.values()]
    letters: list[tuple[Consumed, Unreadable]] = []

    async def give_up(record: Consumed, error: Unreadable) -> None:
        letters.append((record, error))

    with ThreadPoolExecutor(1) as thread:
        learning = asyncio.Lock()
        publisher = Publisher(snapshots, Positions(store), learned, learning, thread, clock, metrics, keep=keep)
        learner = Learner(
            learned,
            CATALOG.placements,
            topic.open,
            give_up,
            publisher.restore_one,
            learning,
            thread,
            clock,
            metrics,
            stall_after_s=60.0,
        )
        rollback = Rollback(snapshots, publisher, learner, thread, clock)
        experiments = Experiments(
            placements, tallies, store, snapshots, learning, thread, clock, metrics, who="learner 0"
        )
        await publisher.restore()
        await experiments.begin()
        task = asyncio.create_task(learner.run() if run else asyncio.Event().wait())
        try:
            yield Rig(learner, publisher, rollback, shards, snapshots, clock, registry, letters, experiments, tallies)
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
