"""What the learner keeps resident from one flush of its archive to the next: ``python -m benchmarks.learner_memory``.

The learner's own loop, its publisher and its archiver in one process, fed out of memory with the examples of
`benchmarks.steady`, some a quarter of a second as its topic brings them, while the clock runs as fast as the work is
done: five minutes of 130 examples a second take some ten seconds of CPU. After each flush: what is resident, the most
that was, and what pyarrow's pool holds. ``--pool mimalloc --keep`` is the learner of before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.logging import configure_logging
from banditmesh.runtime.memory import freeze_heap
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import Store, open_store
from banditmesh.runtime.stream import Consumed
from benchmarks.endless import Endless
from benchmarks.stream.stage import rss_mb

if TYPE_CHECKING:
    from services.learner.archiving.archiver import Archiver

PARTITIONS, STEP_S, FEATURES = 4, 0.25, 16
USERS, CONTENTS = 2000, 300
START_MS = 1_764_400_000_000


@dataclass
class FastClock:
    """Stands still but for what a feed adds to it."""

    elapsed_s: float = 0.0

    def now_s(self) -> float:
        """See `Clock.now_s`."""
        return START_MS / 1000 + self.elapsed_s

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self.elapsed_s

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`: whoever feeds moves the time on."""
        await asyncio.sleep(0)


@dataclass
class Gate:
    """Feeds go up to a moment, wait there for each other, and are let on."""

    until_s: float
    waiting: int = 0
    opened: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait(self, clock: FastClock) -> None:
        """Return when it is not later than the gate lets through."""
        if clock.elapsed_s < self.until_s:
            return
        async with self.opened:
            self.waiting += 1
            await self.opened.wait_for(lambda: clock.elapsed_s < self.until_s)
            self.waiting -= 1

    async def let_on(self, seconds: float) -> None:
        """Open for so many seconds more."""
        async with self.opened:
            self.until_s += seconds
            self.opened.notify_all()


class Feed(Endless):
    """A `reader.Reader` whose every read is a quarter of a second of traffic."""

    def __init__(self, clock: FastClock, gate: Gate, rate: float) -> None:
        super().__init__(range(PARTITIONS))
        self._clock, self._gate, self._rate = clock, gate, rate
        self._rng = np.random.default_rng(5)
        self._features = self._rng.integers(1, 1 << 32, (997, FEATURES), dtype=np.uint64).tolist()
        self._number, self._owed = 0, 0.0
        self.every_10_s: Callable[[], object] | None = None
        self._turn = 0

    async def read(self, partitions: Sequence[int], timeout_s: float) -> Mapping[int, Sequence[Consumed]]:
        """See `Reader.read`."""
        await asyncio.sleep(0)
        await self._gate.wait(self._clock)
        if self.every_10_s is not None and self._clock.elapsed_s // 10 > self._turn:
            self._turn = int(self._clock.elapsed_s // 10)
            await self.every_10_s()  # type: ignore[misc]
        self._owed += self._rate * STEP_S
        found: dict[int, list[Consumed]] = {}
        for _ in range(int(self._owed)):
            one = self._next(START_MS + int(self._clock.elapsed_s * 1000))
            found.setdefault(one.partition, []).append(one)
        self._owed %= 1
        self._clock.elapsed_s += STEP_S
        return found

    def _next(self, now_ms: int) -> Consumed:
        rng, number = self._rng, self._number
        self._number += 1
        user = int(rng.integers(USERS))
        partition = user % PARTITIONS
        offset = self.positions[partition]
        self.positions[partition] += 1
        service = ("films", "comics", "weather")[number % 3]
        decision = events_pb2.Decision(
            impression_id=rng.bytes(16),
            user_id=f"u{user}",
            placement=("home", "news")[number % 2],
            service=service,
            content_id=f"{service}-{int(rng.integers(CONTENTS))}",
            logic="for-you",
            variant="stacked",
            model="stacked-0a1b2c3d",
            model_version=17 + number // 1000,
            propensity=0.25,
            features=events_pb2.Features(ids=self._features[int(rng.integers(997))]),
            decided_at_ms=now_ms - 31_000,
            origin=events_pb2.ORIGIN_POLICY,
        )
        outcome = events_pb2.OUTCOME_CLICK if number % 4 == 0 else events_pb2.OUTCOME_NONE
        joined = events_pb2.JoinedImpression(
            decision=decision,
            outcome=outcome,
            reward=1.0 if number % 4 == 0 else 0.5,
            impression_time_ms=now_ms - 30_000,
            reactions=[outcome] if number % 4 == 0 else [],
        )
        source = events_pb2.Source(partition=partition, offset=offset, log=1)
        value = events_pb2.Example(schema_version=1, source=source, joined=joined).SerializeToString()
        return Consumed("examples", partition, offset, now_ms, f"u{user}".encode(), value)


def archiver_of(feed: Feed, clock: FastClock, store: Store, flush_every_s: float) -> Archiver[object]:
    """An archiver that reads the feed."""
    from services.learner.archiving.archiver import Archiver
    from services.learner.archiving.examples import ExamplesFormat
    from services.learner.archiving.metrics import ArchiveMetrics

    @asynccontextmanager
    async def open_topic(known: object) -> AsyncIterator[Feed]:
        yield feed

    metrics = ArchiveMetrics(CollectorRegistry())
    rows = ExamplesFormat(None, metrics, join_window_s=30.0)
    return Archiver(rows, store, open_topic, clock, metrics, flush_every_s=flush_every_s)  # type: ignore[arg-type]


async def learn(feed: Feed, clock: FastClock, store: Store, text: str) -> None:
    """Learn what the feed brings and publish every 10 s of its time, until cancelled."""
    from banditmesh.runtime.experiments import plan_of
    from services.learner.catalog import Catalog
    from services.learner.experiment_shard import ExperimentShard
    from services.learner.learner import Learner
    from services.learner.metrics import LearnerMetrics
    from services.learner.positions import Positions
    from services.learner.publisher import Publisher
    from services.learner.shard import Shard

    mesh = parse_mesh(text)
    catalog, metrics = Catalog(mesh), LearnerMetrics(CollectorRegistry())
    shards: list[Shard] = [Shard(each, spec, batch=mesh.learning.batch) for each, spec in catalog.models.items()]
    for name, placement in mesh.placements.items():
        tally = ExperimentShard(name, batch=mesh.learning.batch)
        tally.follow(plan_of(placement, {}), START_MS)
        shards.append(tally)

    @asynccontextmanager
    async def open_topic(known: object) -> AsyncIterator[Feed]:
        yield feed

    async def never(*_: object) -> None:
        raise AssertionError("every example is good")

    with ThreadPoolExecutor(1) as thread:
        learning = asyncio.Lock()
        publisher = Publisher(
            Snapshots(store, None), Positions(store), shards, learning, thread, clock, metrics, keep=20
        )
        await publisher.restore()
        feed.every_10_s = publisher.publish_all
        await Learner(
            shards,
            catalog.placements,
            open_topic,
            never,
            never,
            learning,
            thread,
            clock,
            metrics,
            stall_after_s=60.0,
        ).run()


async def run(flushes: int, rate: float, flush_every_s: float, *, archive: bool) -> None:
    """Print a line after each flush."""
    import pyarrow as pa

    from benchmarks.steady import MESH

    pool = pa.default_memory_pool()
    gate = Gate(flush_every_s)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder).as_uri())
        clocks = [FastClock() for _ in range(1 + archive)]
        feeds = [Feed(clock, gate, rate) for clock in clocks]
        tasks = [asyncio.create_task(learn(feeds[0], clocks[0], store, MESH % flush_every_s))]
        if archive:
            # A second before the gate, so that what is looked at is what a flush has left.
            archiver = archiver_of(feeds[1], clocks[1], store, flush_every_s - 1)
            tasks.append(asyncio.create_task(archiver.run()))
        freeze_heap()
        print(f"{pool.backend_name}: {rss_mb(os.getpid()):.1f} MB resident at the start", flush=True)
        for flush in range(flushes):
            most = 0.0
            while gate.waiting < len(feeds) and not any(task.done() for task in tasks):
                most = max(most, rss_mb(os.getpid()))
                await asyncio.sleep(0.02)
            for task in tasks:
                if task.done():
                    task.result()
            held, ever = pool.bytes_allocated() / 2**20, pool.max_memory() / 2**20
            print(
                f"flush {flush + 1}: {rss_mb(os.getpid()):.1f} MB resident, at most {most:.1f}; the pool holds "
                f"{held:.1f}, at most {ever:.1f}",
                flush=True,
            )
            await gate.let_on(flush_every_s)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flushes", type=int, default=6)
    parser.add_argument("--rate", type=float, default=130.0, help="examples a second")
    parser.add_argument("--flush-every", type=float, default=300.0, help="seconds of the traffic's time")
    parser.add_argument("--pool", choices=("system", "mimalloc", "jemalloc"), default="system")
    parser.add_argument("--keep", action="store_true", help="do not give back after a flush")
    parser.add_argument("--no-archive", action="store_true")
    options = parser.parse_args()
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = options.pool  # before anything imports pyarrow
    configure_logging("benchmark", level="warning")
    if options.keep:
        from services.learner.archiving import archiver

        archiver.give_back = lambda: False  # type: ignore[attr-defined]
    asyncio.run(run(options.flushes, options.rate, options.flush_every, archive=not options.no_archive))


if __name__ == "__main__":
    main()
