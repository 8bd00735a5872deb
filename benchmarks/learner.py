"""What an example costs the learner between Kafka and the model, in CPU time: ``python -m benchmarks.learner``.

The learner's own loop and the archive's, in one process, read the records of `benchmarks.stream` out of memory, 2000 at
a time as they come from Kafka: decode, merge, columns, learn, count; and decode, columns for files. CPU time of the
process, so a busy machine changes little; the least of some passes. With ``--beside FOLDER``, another checkout of this
repository with its contracts generated, both are measured in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from banditmesh.runtime.clock import SystemClock
from banditmesh.runtime.experiments import plan_of
from banditmesh.runtime.kafka.topics import partition_of
from banditmesh.runtime.logging import configure_logging
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.store import open_store
from banditmesh.runtime.stream import Consumed
from benchmarks.endless import Endless
from benchmarks.stream.learner import POLICIES
from benchmarks.stream.stage import MESH, PARTITIONS, examples
from services.learner.archiving.archiver import Archiver
from services.learner.archiving.examples import ExamplesFormat
from services.learner.archiving.metrics import ArchiveMetrics
from services.learner.catalog import Catalog
from services.learner.experiment_shard import ExperimentShard
from services.learner.learner import Learner
from services.learner.metrics import LearnerMetrics
from services.learner.shard import Shard

EXAMPLES, AT_ONCE, A_SECOND = 20_000, 2000, 10_000
START_MS = 1_764_400_000_000
Records = Mapping[int, Sequence[Consumed]]


class FromMemory(Endless):
    """See `reader.Reader`."""

    def __init__(self, records: Records) -> None:
        super().__init__(records)
        self._records = records

    async def read(self, partitions: Sequence[int], timeout_s: float) -> Records:
        """See `Reader.read`."""
        await asyncio.sleep(0)
        found = {}
        for partition in partitions:
            at = self.positions[partition]
            if some := self._records[partition][at : at + AT_ONCE // PARTITIONS]:
                found[partition] = some
                self.positions[partition] += len(some)
        return found


def opened(records: Records) -> Callable[[object], AbstractAsyncContextManager[FromMemory]]:
    """What opens a reader of them."""

    @asynccontextmanager
    async def open_topic(known: object) -> AsyncIterator[FromMemory]:
        yield FromMemory(records)

    return open_topic


def records_of(n: int) -> Records:
    """By partition, :data:`A_SECOND` a second of broker time; the last one of each closes what came before."""
    found: dict[int, list[Consumed]] = {partition: [] for partition in range(PARTITIONS)}
    for number, (key, value) in enumerate(examples(n)):
        mine = found[partition_of(key, PARTITIONS)]
        time_ms = START_MS + number * 1000 // A_SECOND
        mine.append(Consumed("examples", partition_of(key, PARTITIONS), len(mine), time_ms, key, value))
    end_ms = START_MS + (n // A_SECOND + 2) * 1000
    for mine in found.values():
        mine.append(mine[-1]._replace(offset=len(mine), time_ms=end_ms))
    return found


async def learned(records: Records, policy: str, n: int) -> None:
    """Let a learner learn all of them."""
    mesh = parse_mesh(MESH.format(prefix="x-", policy=POLICIES[policy], window="1s", snapshot_every="1s"))
    catalog, registry = Catalog(mesh), CollectorRegistry()
    shards = [Shard(shard_id, spec, batch=mesh.learning.batch) for shard_id, spec in catalog.models.items()]
    tally = ExperimentShard("home", batch=mesh.learning.batch)
    tally.follow(plan_of(mesh.placements["home"], {}), 0)

    async def never(*_: object) -> None:
        raise AssertionError("every example is good")

    with ThreadPoolExecutor(1) as thread:
        learner = Learner(
            [*shards, tally],
            catalog.placements,
            opened(records),  # type: ignore[arg-type]
            never,
            never,
            asyncio.Lock(),
            thread,
            SystemClock(),
            LearnerMetrics(registry),
            stall_after_s=60.0,
        )
        running = asyncio.create_task(learner.run())
        while any(shard.examples < n for shard in (*shards, tally)):
            async with learner.turned:
                await learner.turned.wait()
        running.cancel()
        await asyncio.wait([running])


async def archived(records: Records, n: int) -> None:
    """Let an archiver take all of them in, and write the files."""
    registry = CollectorRegistry()
    metrics = ArchiveMetrics(registry)
    with tempfile.TemporaryDirectory() as folder:
        rows = ExamplesFormat(None, metrics, join_window_s=1.0)
        reader = FromMemory(records)

        @asynccontextmanager
        async def open_topic(known: object) -> AsyncIterator[FromMemory]:
            yield reader

        archiver = Archiver(
            rows,
            open_store(Path(folder).as_uri()),
            open_topic,  # type: ignore[arg-type]
            SystemClock(),
            metrics,
            flush_every_s=3600.0,
        )
        running = asyncio.create_task(archiver.run())
        while sum(reader.positions.values()) < n + PARTITIONS:  # noqa: ASYNC110 - a reader tells nobody
            await asyncio.sleep(0)
        await archiver.close()
        running.cancel()
        await asyncio.wait([running])


def measure(policy: str, n: int = EXAMPLES, passes: int = 3) -> dict[str, float]:
    """CPU microseconds an example."""
    configure_logging("benchmark", level="warning")
    records = records_of(n)
    gc.freeze()
    gc.set_threshold(20_000)
    found: dict[str, float] = {}
    for _ in range(passes):
        for name, work in (("learn", lambda: learned(records, policy, n)), ("archive", lambda: archived(records, n))):
            began = time.process_time()
            asyncio.run(work())
            found[name] = min(found.get(name, 1e9), 1e6 * (time.process_time() - began) / n)
    return {**found, "both": found["learn"] + found["archive"]}


def elsewhere(folder: Path, policy: str) -> dict[str, float]:
    """The same of another checkout, in a process of its own."""
    program = f"import json, runpy; print(json.dumps(runpy.run_path({__file__!r})['measure']({policy!r}, passes=1)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", choices=POLICIES, default="linear")
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    folders = {"here": Path(__file__).parents[1], **({"beside": options.beside} if options.beside else {})}
    least: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for name, folder in folders.items():
            found = elsewhere(folder, options.policy)
            before = least.setdefault(name, found)
            least[name] = {step: min(value, before[step]) for step, value in found.items()}
    if options.json:
        print(json.dumps(least))
        return
    for step, here in least["here"].items():
        text = f"{step:<8}{here:>7.1f} CPU µs an example"
        if options.beside:
            other = least["beside"][step]
            text += f"; beside it {other:.1f}, {other / here:.2f} times as much"
        print(text)


if __name__ == "__main__":
    main()
