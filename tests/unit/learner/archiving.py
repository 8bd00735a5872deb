"""An archiver with a list for a topic."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.dataset as ds
from prometheus_client import CollectorRegistry

from banditmesh.archive.reader import read
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.store import Store
from services.learner.archiving.archiver import Archiver
from services.learner.archiving.examples import ExamplesFormat
from services.learner.archiving.metrics import ArchiveMetrics
from services.learner.archiving.rows import Chunk
from services.learner.reader import Known, Reader
from tests.support.examples import T0_MS, tick, traffic
from tests.unit.learner.parts import Topic

T0 = datetime.fromtimestamp(T0_MS / 1000, UTC)
DAY = timedelta(days=1)


class Rig:
    """An archiver of a topic into a store."""

    def __init__(self, topic: Topic, store: Store, *, user_id: Callable[[str], str] | None = None) -> None:
        self.registry, self.clock = CollectorRegistry(), ManualClock()
        metrics = ArchiveMetrics(self.registry)

        def open_topic(begin: Callable[[Mapping[int, int]], Known]) -> AbstractAsyncContextManager[Reader]:
            return topic.open(begin({partition: topic.generation * 100 + partition for partition in topic.records}))

        rows = ExamplesFormat(user_id, metrics, join_window_s=600.0)
        self.archiver: Archiver[Chunk | None] = Archiver(
            rows, store, open_topic, self.clock, metrics, flush_every_s=60.0
        )
        self.topic = topic

    async def read(self, n: int) -> None:
        """Let it read until n records of each partition, or all that there are, are in memory, and nothing more."""
        following = asyncio.create_task(self.archiver._follow())
        while not following.done() and not self._has(n):  # noqa: ASYNC110 - it is stopped at any turn; no event says so
            await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait([following])
        if not following.cancelled() and (error := following.exception()):
            raise error

    def _has(self, n: int) -> bool:
        partitions = self.archiver._partitions
        return len(partitions) == self.topic.partitions and all(
            partitions[number].end >= min(n, len(records)) for number, records in self.topic.records.items()
        )

    async def archive(self, n: int = 1_000_000) -> None:
        """Read and write, as `read` does."""
        await self.read(n)
        await self.archiver.flush()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"banditmesh_learner_{name}", labels) or 0.0


def topic_of(n: int, *, partitions: int = 2, seed: int = 1, at_once: int = 10) -> Topic:
    topic = Topic(partitions, at_once=at_once)
    topic.append(traffic(n, partitions=partitions, seed=seed, span_s=7200))
    return topic


def examples_of(topic: Topic) -> Counter[tuple[int, int]]:
    """Where the topic has an example that is no tick."""
    ticks = tick().SerializeToString()
    return Counter(
        (partition, record.offset)
        for partition, records in topic.records.items()
        for record in records
        if record.value != ticks
    )


def in_files(folder: Path) -> Counter[tuple[int, int]]:
    """What anybody sees who reads the folder as it is."""
    files = [str(path) for path in (folder / "archive" / "examples").rglob("*.parquet")]
    if not files:
        return Counter()
    table = ds.dataset(files).to_table(columns=["example_partition", "example_offset"])
    return Counter(zip(*(column.to_pylist() for column in table.columns), strict=True))


async def by_reader(store: Store, placement: str = "home") -> Counter[tuple[int, int]]:
    """What our own reader sees."""
    batches = [each async for each in read(store, placement, T0 - DAY, T0 + DAY)]
    return Counter(
        pair
        for batch in batches
        for pair in zip(
            batch.column("example_partition").to_pylist(), batch.column("example_offset").to_pylist(), strict=True
        )
    )
