"""What an event costs the tracker, in CPU time: the check alone, Kafka alone, and TrackEvents from bytes to bytes.

``python -m benchmarks.tracker [--json] [--kafka host:port]``; without ``--kafka`` it starts a broker of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.clock import SystemClock
from banditmesh.runtime.kafka.producer import Producer, Record
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from banditmesh.runtime.logging import configure_logging
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.token import KeyRing
from services.tracker.intake import Intake
from services.tracker.metrics import TrackerMetrics
from services.tracker.servicer import EventTrackerServicer
from services.tracker.tracker import Tracker

MESH = parse_mesh("{services: {comics: {logics: [new]}}, placements: {head: {sources: [comics/new]}}}")
KEYS = KeyRing.parse("1:" + secrets.token_hex(32))
FEATURES = 30
EVENTS = 20_000


class Call:
    """The little of a servicer's context that TrackEvents looks at."""

    def time_remaining(self) -> float:
        return 10.0


def requests(size: int) -> list[bytes]:
    """Serialised requests of ``size`` events each, half impressions, half clicks, ``EVENTS`` in all."""
    now_ms = int(SystemClock().now_s() * 1000)
    events = []
    for number in range(EVENTS // 2):
        token = KEYS.sign(
            events_pb2.Decision(
                impression_id=secrets.token_bytes(16),
                user_id=f"user-{number:08d}",
                placement="head",
                service="comics",
                content_id=f"content-{number % 1000}",
                logic="new",
                variant="linucb",
                model="linucb-0a1b2c3d",
                model_version=17,
                propensity=0.125,
                features=events_pb2.Features(ids=[secrets.randbits(32) for _ in range(FEATURES)]),
                decided_at_ms=now_ms,
                origin=events_pb2.ORIGIN_POLICY,
            )
        )
        events.append(tracker_pb2.Event(impression_token=token, shown=tracker_pb2.Shown()))
        events.append(tracker_pb2.Event(impression_token=token, click=events_pb2.Click()))
    return [
        tracker_pb2.TrackEventsRequest(events=events[at : at + size]).SerializeToString()
        for at in range(0, EVENTS, size)
    ]


async def cpu_us_per_event(run: Callable[[], Awaitable[Any]]) -> float:
    """CPU microseconds an event, the best of three runs over ``EVENTS`` events."""
    best = float("inf")
    for _ in range(3):
        began_s = time.process_time()
        await run()
        best = min(best, time.process_time() - began_s)
    return best / EVENTS * 1e6


async def measure(bootstrap: str) -> dict[str, float]:
    topics = Topics.named(f"bench-{secrets.token_hex(4)}-")
    await ensure_topics(bootstrap, topics, partitions=4, replication=1)
    producer = Producer(bootstrap)
    intake = Intake(MESH, KEYS, topics, SystemClock())
    tracker = Tracker(intake, producer, TrackerMetrics(CollectorRegistry()), SystemClock())
    servicer = EventTrackerServicer(tracker)
    parsed = [tracker_pb2.TrackEventsRequest.FromString(body) for body in requests(100)]
    records = [Record(topics.impressions, b"user-%08d" % number, bytes(250)) for number in range(100)]

    async def check() -> None:
        for request in parsed:
            for event in request.events:
                intake.check(event)

    async def send() -> None:
        await asyncio.gather(*(producer.send_many(records) for _ in range(EVENTS // 100)))

    def whole(size: int) -> Callable[[], Awaitable[None]]:
        bodies = requests(size)

        async def worker(mine: list[bytes]) -> None:
            for body in mine:
                request = tracker_pb2.TrackEventsRequest.FromString(body)
                response = await servicer.TrackEvents(request, Call())
                assert response.accepted == size
                response.SerializeToString()

        async def run() -> None:
            await asyncio.gather(*(worker(bodies[first::20]) for first in range(20)))

        return run

    try:
        return {
            "tracker.check": await cpu_us_per_event(check),
            "tracker.kafka.batch100": await cpu_us_per_event(send),
            "tracker.whole.batch1": await cpu_us_per_event(whole(1)),
            "tracker.whole.batch10": await cpu_us_per_event(whole(10)),
            "tracker.whole.batch100": await cpu_us_per_event(whole(100)),
            "tracker.whole.batch1000": await cpu_us_per_event(whole(1000)),
        }
    finally:
        await producer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="use this broker")
    arguments = parser.parse_args()
    configure_logging("benchmark", level="warning")
    if arguments.kafka:
        figures = uvloop.run(measure(arguments.kafka))
    else:
        with tempfile.TemporaryDirectory() as folder, Kafka(Path(folder)) as broker:
            figures = uvloop.run(measure(broker.bootstrap))
    for name, value in figures.items():
        if arguments.json:
            print(json.dumps({"name": name, "value": round(value, 2), "unit": "CPU us/event"}))
        else:
            print(f"{name:24} {value:6.1f} CPU µs an event")


if __name__ == "__main__":
    main()
