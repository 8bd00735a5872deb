"""Does memory grow? A mesh of its own under steady traffic of a fixed set of users, contents and features: what each
process has resident, at first, at last, and by how much it grew a minute.

Users come one after the other at a fixed rate: each is shown a content and reacts to every other one, so that two of
three events are impressions. Whoever falls behind is not caught up with. What the first minutes fill (caches, arms,
allocators) is left out: the slope is by least squares over what comes after ``--warm-up``. Kafka and Valkey keep what
they are given and are shown for comparison. *Its rows* are the bytes that the learner's archive counts as held: they
rise to each flush and fall to nothing, a saw; ``--flush-every`` sets how many teeth it has.
``python -m benchmarks.steady [--json] [--minutes 30] [--rate 300] [--warm-up 5] [--flush-every 300]``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from banditmesh.client import ClientLimits, Event, MeshClient, Selected, click, dwell, shown
from banditmesh.contracts.importer.v1 import importer_pb2, importer_pb2_grpc
from banditmesh.local.service import Process
from banditmesh.local.stack import LocalMesh
from banditmesh.runtime.errors import MeshError
from benchmarks.stream.stage import metrics, rss_mb

USERS, CONTENTS, CANDIDATES = 2000, 300, 20
TURN_S, SAMPLE_S = 0.2, 5.0
EVENTS_A_VISIT = 1.5
DEADLINE_S = 5.0
"""Longer than an app would wait: what is looked at is memory, on machines that may be busy."""
SERVICES = ("films", "comics", "weather")
MESH = """
services: {films: {logics: [for-you]}, comics: {logics: [for-you]}, weather: {logics: [for-you]}}
placements:
  home: &home
    sources: [films/for-you, comics/for-you, weather/for-you]
    features: {profile: [age], state: [feedback], context: [hour, device], content: [service],
      crosses: [[age, service], [device, service]]}
    rewards: {dwell: 0.01}
    hide_clicked: false
  news: *home
join: {window: 30s}
learning: {snapshot_every: 10s}
archive: {flush_every: %gs}
"""
ROWS = "banditmesh_learner_archive_memory_bytes"
"""What the learner's archive holds by its own count; resident is also what its allocator keeps."""


@dataclass
class Seen:
    """What was measured: seconds since the start and MB of each process, and what became of the events."""

    at_s: list[float] = field(default_factory=list)
    mb: dict[str, list[float]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    nothing_until_s: dict[str, float] = field(default_factory=dict)
    """Why there was nothing to show → seconds from the start to when that was said last."""
    began_s: float = field(default_factory=time.monotonic)


def write_files(folder: Path) -> dict[str, Path]:
    """A mapping for each service, and profiles: the same whenever it is called."""
    rng = np.random.default_rng(1)
    files = {}
    for service in SERVICES:
        lines = []
        for user in range(USERS):
            picked = rng.choice(CONTENTS, CANDIDATES, replace=False)
            lines.append(f"u{user}," + "|".join(f"{service}-{content}" for content in picked.tolist()))
        files[service] = folder / f"{service}.csv"
        files[service].write_text("user_id,contents\n" + "\n".join(lines) + "\n")
    files["profiles"] = folder / "profiles.csv"
    files["profiles"].write_text("user_id,age\n" + "".join(f"u{user},a{user % 7}\n" for user in range(USERS)))
    return files


async def import_all(address: str, files: Mapping[str, Path]) -> None:
    """Import the files. Raises RuntimeError when one is refused."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = importer_pb2_grpc.ImporterServiceStub(channel)
        for name, path in files.items():
            uri = path.as_uri()
            if name == "profiles":
                job = (await stub.NotifyProfiles(importer_pb2.NotifyProfilesRequest(uri=uri, version="1"))).job
            else:
                request = importer_pb2.NotifyMappingRequest(service=name, logic="for-you", uri=uri, version="1")
                job = (await stub.NotifyMapping(request)).job
            async for update in stub.WatchImportJob(importer_pb2.WatchImportJobRequest(job_id=job.job_id)):
                job = update.job
            if job.state != importer_pb2.IMPORT_STATE_SUCCEEDED:
                raise RuntimeError(f"{name} was not imported: {job.error.message}")


async def visit(client: MeshClient, number: int, seen: Seen) -> None:
    """One user comes, sees, and reacts now and then."""
    placement = ("home", "news")[number % 2]
    try:
        selection = await client.select(placement, f"u{number * 7919 % USERS}", context={"device": f"d{number % 3}"})
        if not isinstance(selection, Selected):
            seen.events[f"nothing to show: {selection.message}"] += 1
            seen.nothing_until_s[selection.message] = time.monotonic() - seen.began_s
            return
        events: list[Event] = [shown(selection)]
        if number % 4 < 2:
            events.append(click(selection) if number % 4 == 0 else dwell(selection, 10.0))
        for outcome in await client.track(events):
            seen.events["stored" if outcome is None else outcome.code.name] += 1
    except MeshError as error:
        seen.events[error.code.name] += 1


async def traffic(client: MeshClient, rate: float, until_s: float, seen: Seen) -> None:
    """So many events a second, in small bursts."""
    visits, began_s, number = rate / EVENTS_A_VISIT * TURN_S, time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        turn = 0
        while (now_s := time.monotonic()) < until_s:
            for _ in range(round(visits * (turn + 1)) - round(visits * turn)):
                group.create_task(visit(client, number, seen))
                number += 1
            # A turn that is late is not made up for: traffic is steady, not heaped.
            turn = max(turn + 1, int((now_s - began_s) / TURN_S))
            await asyncio.sleep(began_s + turn * TURN_S - time.monotonic())


def rows_mb(learner: Process) -> float:
    """What the learner says that its archive holds; NaN when it does not answer."""
    try:
        return metrics(learner)[ROWS] / 2**20
    except OSError:
        return float("nan")


async def sample(mesh: LocalMesh, until_s: float, seen: Seen) -> None:
    """What every process has resident, again and again."""
    began_s = time.monotonic()
    while time.monotonic() < until_s:
        seen.at_s.append(time.monotonic() - began_s)
        for name, process in {**mesh.services, **mesh.servers}.items():
            seen.mb.setdefault(name, []).append(rss_mb(process.pid))
        seen.mb.setdefault("its rows", []).append(await asyncio.to_thread(rows_mb, mesh.services["learner"]))
        await asyncio.sleep(SAMPLE_S)


def figures(seen: Seen, warm_up_s: float) -> dict[str, dict[str, float]]:
    """First and last MB behind the warm-up, and MB a minute, by process."""
    at_s = np.array(seen.at_s)
    after = at_s >= min(warm_up_s, at_s[-1] / 2)
    found = {}
    for name, samples in seen.mb.items():
        known = after & np.isfinite(samples)
        mb = np.array(samples)[known]
        slope = float(np.polyfit(at_s[known] / 60, mb, 1)[0]) if len(mb) > 1 else 0.0
        found[name] = {"start_mb": samples[0], "first_mb": float(mb[0]), "last_mb": float(mb[-1]), "mb_a_minute": slope}
    return found


async def run(folder: Path, minutes: float, rate: float, flush_every_s: float) -> Seen:
    """A mesh, its traffic, and what was seen of it."""
    config = folder / "mesh.yaml"
    config.write_text(MESH % flush_every_s)
    seen = Seen()
    mesh = LocalMesh(folder / "mesh", config)
    try:
        await asyncio.to_thread(mesh.start)
        await import_all(mesh.addresses["importer"], write_files(folder))
        seen.began_s = time.monotonic()
        until_s = seen.began_s + 60 * minutes
        patient = ClientLimits(deadline_s=DEADLINE_S)
        async with (
            MeshClient(mesh.addresses["crs_engine"], mesh.addresses["tracker"], limits=patient) as client,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(traffic(client, rate, until_s, seen))
            group.create_task(sample(mesh, until_s, seen))
    finally:
        await asyncio.to_thread(mesh.stop)
    return seen


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=300.0, help="events a second")
    parser.add_argument("--flush-every", type=float, default=300.0, help="seconds from one archive file to the next")
    parser.add_argument("--warm-up", type=float, default=5.0, help="minutes that the slope leaves out; at most half")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = asyncio.run(run(Path(folder), options.minutes, options.rate, options.flush_every))
    found = figures(seen, 60 * options.warm_up)
    stored = seen.events["stored"] / (60 * options.minutes)
    if options.json:
        said = {"events": seen.events, "nothing_until_s": seen.nothing_until_s, "stored_a_second": stored}
        print(json.dumps({"processes": found, **said}))
        return
    print(f"{stored:.0f} events a second were stored over {options.minutes:g} minutes; {dict(seen.events)}")
    for message, at_s in seen.nothing_until_s.items():
        print(f"{message}: last said {at_s:.0f} s after traffic began")
    print(f"{'process':<12}{'start':>9}{'first':>9}{'last':>9}{'a minute':>11}   MB resident")
    for name, each in found.items():
        print("{:<12}{:>9.1f}{:>9.1f}{:>9.1f}{:>+11.3f}".format(name, *each.values()))


if __name__ == "__main__":
    main()
