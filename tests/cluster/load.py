"""Steady traffic from the Python client, run in a pod: what `make cluster-test` counts.

Imports a mapping for its users, then selects and reports what was shown, at a steady rate, until the file /tmp/stop is
there; prints a JSON line of counts each second. In the end it waits until each acknowledged impression has become an
example, and says how many did not, or twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from aiokafka.errors import KafkaError

from banditmesh.client import ClientLimits, Event, MeshClient, Selected, click, shown
from banditmesh.demo.imports import import_file
from banditmesh.demo.outcome import ExamplesReader
from banditmesh.demo.report import Examples
from banditmesh.demo.target import Target, existing_target, parse_endpoints
from banditmesh.runtime.errors import MeshError

STOP = Path("/tmp/stop")
SELECT_WITHIN_S, TRACK_WITHIN_S, SETTLE_WITHIN_S = 5.0, 60.0, 120.0
CLICK_EVERY = 5
NUMBER = re.compile(r"\d[\d.]*")


class Load:
    """The traffic and its counts."""

    def __init__(self, target: Target, placement: str, users: list[str], per_second: float) -> None:
        self._target, self._placement, self._users, self._pause_s = target, placement, users, 1 / per_second
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.acknowledged: set[bytes] = set()
        self.slowest_s = 0.0

    async def run(self) -> None:
        """Visit until told to stop; a visit never waits for another one."""
        limits = ClientLimits(deadline_s=SELECT_WITHIN_S)
        async with self._target.client(limits) as client, asyncio.TaskGroup() as visits:
            number, next_s = 0, time.monotonic()
            while not _told_to_stop():
                visits.create_task(self._visit(client, number))
                number += 1
                next_s += self._pause_s
                await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    async def _visit(self, client: MeshClient, number: int) -> None:
        began = time.monotonic()
        self.counts["select"] += 1
        try:
            selection = await client.select(self._placement, self._users[number % len(self._users)])
        except MeshError as error:
            self._failed("select", error)
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        if not isinstance(selection, Selected):
            self.counts["empty"] += 1
            return
        self.counts[f"origin {selection.origin.name.lower()}"] += 1
        events: list[Event] = [shown(selection)]
        if number % CLICK_EVERY == 0:
            events.append(click(selection))
        self.counts["track"] += 1
        for refused in await client.track(events, deadline_s=TRACK_WITHIN_S):
            if refused is not None:
                self._failed("track", refused)
                return
        self.acknowledged.add(selection.impression_id)

    def _failed(self, call: str, error: MeshError) -> None:
        self.counts[f"{call} failed"] += 1
        self.failures[f"{call}: {type(error).__name__}: {NUMBER.sub('N', error.message[:120])}"] += 1

    def line(self, **more: object) -> str:
        """The counts so far."""
        slowest, self.slowest_s = self.slowest_s, 0.0
        said = {**self.counts, "slowest_s": round(slowest, 3), "failures": dict(self.failures)}
        return json.dumps({"at": round(time.time(), 1), **said, **more})


def _told_to_stop() -> bool:
    return STOP.exists()


async def tell(load: Load) -> None:
    while True:
        await asyncio.sleep(1)
        print(load.line(), flush=True)


async def follow(reader: ExamplesReader, over: asyncio.Event) -> None:
    while not over.is_set():
        try:
            await reader.read(0.5)
        except KafkaError:  # its pod is deleted, too
            await asyncio.sleep(0.5)


async def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--placement", required=True)
    parser.add_argument("--import-into", required=True)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--per-second", type=float, default=25)
    arguments = parser.parse_args()
    target = existing_target(parse_endpoints(arguments.endpoints))
    users = [f"load-{number}" for number in range(arguments.users)]
    service, logic = arguments.import_into.split("/")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "load.csv"
        path.write_text("user_id,contents\n" + "".join(f"{user},load-a|load-b|load-c\n" for user in users))
        await import_file(target, path, service, logic, version=f"load-{time.time():.0f}")
    examples = Examples()
    reader = ExamplesReader(target.kafka, "examples", examples)
    await reader.start()
    load = Load(target, arguments.placement, users, arguments.per_second)
    over = asyncio.Event()
    telling, following = asyncio.create_task(tell(load)), asyncio.create_task(follow(reader, over))
    print("ready", flush=True)
    await load.run()
    telling.cancel()
    over.set()
    await following
    await reader.read_until_settled(load.acknowledged, SETTLE_WITHIN_S)
    await reader.stop()
    copies = [examples.copies[impression] for impression in load.acknowledged]
    result = {"acknowledged": len(copies), "missing": copies.count(0), "twice": sum(count > 1 for count in copies)}
    print(load.line(**result, done=True), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
