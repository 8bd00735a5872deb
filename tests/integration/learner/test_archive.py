"""The archive on real servers: Kafka, and a store that speaks S3."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from banditmesh.archive.reader import read
from banditmesh.archive.state import States
from banditmesh.runtime.store import Store, open_store
from tests.integration.learner.running import running, settings
from tests.support.eventually import eventually
from tests.support.examples import T0_MS, ExamplesTopic, traffic

N = 600


async def archived(store: Store, partitions: range) -> bool:
    """Whether the examples of these partitions are all archived: the closing tick stands behind them."""
    states = {number: state for (_, number), state in (await States(store, "examples").all()).items()}
    return all(number in states and states[number].mark.time_ms > T0_MS + 7_200_000 for number in partitions)


async def test_two_replicas_share_the_partitions_and_archive_each_example_once(
    topic: ExamplesTopic, fresh_store: str, tmp_path: Path
) -> None:
    await topic.send(traffic(N, partitions=3, seed=3, span_s=7200))
    store = open_store(fresh_store)
    for ordinal in (0, 1):
        config = settings(tmp_path, topic.bootstrap, fresh_store, topic.prefix, replicas=2, ordinal=ordinal)
        config.config.write_text(config.config.read_text() + "\narchive: {flush_every: 200ms}\n")
        async with running(config) as replica:
            mine = range(ordinal, 3, 2)

            await eventually(partial(archived, store, mine))
            assert replica.metric("archive_lost_offsets_total", kind="examples") == 0

    around, day = datetime.fromtimestamp(T0_MS / 1000, UTC), timedelta(days=1)
    rows: Counter[tuple[int, int]] = Counter()
    async for batch in read(store, "home", around - day, around + day):
        names = ("example_partition", "example_offset")
        rows.update(zip(*(batch.column(name).to_pylist() for name in names), strict=True))
    await store.close()
    assert len(rows) == N
    assert set(rows.values()) == {1}
