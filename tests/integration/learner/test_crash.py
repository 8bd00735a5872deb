"""A learner that is killed, again and again, and two that believe to be the same one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from pyarrow import dataset

from banditmesh.archive.reader import read
from banditmesh.contracts.learner.v1 import learner_pb2
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.store import open_store
from tests.integration.learner.running import published, running, settings
from tests.support.examples import T0_MS, ExamplesTopic, Given, closing, tick, traffic

N, KILLS = 3000, 6
TICK = tick().SerializeToString()
OFFSETS = ("example_partition", "example_offset")


@asynccontextmanager
async def process(folder: Path, topic: ExamplesTopic, store: str) -> AsyncIterator[Process]:
    """A learner process that publishes and archives five times a second; killed at the end of the block unless it has
    ended."""
    config = settings(folder, topic.bootstrap, store, topic.prefix).config
    text = config.read_text().replace("snapshot_every: 30s", "snapshot_every: 200ms")
    config.write_text(f"{text}\narchive: {{flush_every: 200ms}}\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BANDITMESH_")} | {
        "BANDITMESH_CONFIG": str(config),
        "BANDITMESH_KAFKA": topic.bootstrap,
        "BANDITMESH_STORE": store,
        "BANDITMESH_GRPC_ADDRESS": "127.0.0.1:0",
        "BANDITMESH_METRICS_HOST": "127.0.0.1",
        "BANDITMESH_METRICS_PORT": "0",
        "BANDITMESH_LOG_FORMAT": "json",
    }
    learner = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.learner", env=environ, stderr=PIPE)
    try:
        yield learner
    finally:
        if learner.returncode is None:
            learner.kill()
        await learner.communicate()


async def until_logged(learner: Process, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    """Read its log until a line is the wanted one."""
    assert learner.stderr is not None
    async for line in learner.stderr:
        entry: dict[str, object] = json.loads(line)
        if wanted(entry):
            return entry
    raise AssertionError("the learner ended without logging it")


def says(event: str) -> Callable[[dict[str, object]], bool]:
    """Whether a line is of this event."""
    return lambda entry: entry.get("event") == event


def publishes(policy: str) -> Callable[[dict[str, object]], bool]:
    """Whether a line says that a snapshot of this policy was written."""
    return lambda entry: entry.get("event") == "snapshot published" and policy in str(entry.get("shard"))


def has_published(model: str, examples: int) -> Callable[[dict[str, object]], bool]:
    """Whether a line says that a snapshot with so many examples stands in the store."""
    return lambda entry: (
        entry.get("event") in ("snapshot published", "restored")
        and entry.get("examples") == examples
        and model in str(entry.get("shard"))
    )


def files_of(store: str) -> Counter[tuple[int, int]]:
    """Partition and offset of every row that there is, as anybody sees it who reads the files."""
    table = dataset.dataset(store.removeprefix("file://") + "/archive/examples", format="parquet").to_table()
    return Counter(zip(*(table.column(name).to_pylist() for name in OFFSETS), strict=True))


async def archive_of(url: str) -> Counter[tuple[int, int]]:
    """The same, as our reader sees it."""
    store, day = open_store(url), timedelta(days=1)
    around = datetime.fromtimestamp(T0_MS / 1000, UTC)
    found: Counter[tuple[int, int]] = Counter()
    async for batch in read(store, "home", around - day, around + day):
        found.update(zip(*(batch.column(name).to_pylist() for name in OFFSETS), strict=True))
    await store.close()
    return found


def positions(records: Iterable[Given]) -> list[tuple[int, int]]:
    """Where the examples among these records stand in their topic."""
    offsets: Counter[int] = Counter()
    found = []
    for record in records:
        if record.value != TICK:
            found.append((record.partition, offsets[record.partition]))
        offsets[record.partition] += 1
    return found


async def test_a_learner_killed_at_random_ends_with_the_same_model_and_with_each_example_archived_once(
    topic: ExamplesTopic, file_store: str, tmp_path: Path
) -> None:
    records = traffic(N, partitions=3, seed=7, span_s=300.0)
    rng = np.random.default_rng(7)
    # While it learns, while it archives, or just when this model is published and the next one is being written.
    moments = [says("connected to kafka"), says("archived"), publishes("linucb")] * (KILLS // 3)
    sent = 0
    for turn, cut in zip(rng.permutation(KILLS), sorted(rng.integers(1, N, KILLS).tolist()), strict=True):
        await topic.send(records[sent:cut])
        sent = cut
        async with process(tmp_path, topic, file_store) as learner:
            await until_logged(learner, moments[turn])
            learner.kill()
    await topic.send(records[sent:])
    other = (tmp_path / "uninterrupted").as_uri()
    async with running(settings(tmp_path, topic.bootstrap, other, topic.prefix)) as uninterrupted:
        model = (await uninterrupted.until_learned(N)).model
    async with process(tmp_path, topic, file_store) as learner:
        await until_logged(learner, has_published(model, N))
        learner.terminate()
        await until_logged(learner, says("stopped"))
        assert await learner.wait() == 0
    straight, piecewise = await published(other, model), await published(file_store, model)
    assert piecewise.manifest.version > straight.manifest.version
    assert piecewise.manifest.examples == N
    assert piecewise.manifest.offsets == straight.manifest.offsets
    assert piecewise.manifest.sources == straight.manifest.sources
    assert piecewise.body == straight.body
    archived = files_of(file_store)
    assert archived == Counter(positions(records))
    assert archived == await archive_of(file_store)


async def test_a_second_learner_with_the_same_ordinal_is_superseded_and_ends_with_an_error(
    topic: ExamplesTopic, file_store: str, tmp_path: Path
) -> None:
    records = traffic(400, partitions=3, seed=8)
    now_ms = records[200].time_ms
    complete = sum(each.time_ms < now_ms - now_ms % 1000 for each in records[:200])
    async with process(tmp_path, topic, file_store) as zombie:
        await topic.send([*records[:200], *closing(3, now_ms)])
        for policy in ("linucb", "popularity"):
            await until_logged(zombie, has_published(policy, complete))
        # Another one takes over: it publishes a version of its own while the first one has nothing to publish.
        config = settings(tmp_path, topic.bootstrap, file_store, topic.prefix)
        async with running(config, ManualClock()) as successor:
            async with asyncio.timeout(30):
                await successor.parts.publisher.restored.wait()
            version = (await successor.status("linucb")).version
            request = learner_pb2.RollbackSnapshotRequest(placement="home", model="linucb", version=version)
            await successor.stub.RollbackSnapshot(request)
            await topic.send(records[200:])
            crash = await until_logged(zombie, says("background task ends the service"))
            assert "this publisher last saw" in str(crash["reason"])
            await until_logged(zombie, says("stopped"))
            assert await zombie.wait() == 1
            await successor.until_learned(400)
