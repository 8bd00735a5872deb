"""The tracker, through gRPC: acknowledged events a second, and how long an answer takes at half of that."""

from __future__ import annotations

import asyncio
import secrets
import time

import grpc

from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.runtime.token import KeyRing
from benchmarks.stream.stage import Figures, Stage, decisions, metrics, percentile

EVENTS = 100_000
AT_ONCE = 500
CALLS = 16
HALF_LOAD_S = 8.0
_METHOD = "/banditmesh.tracker.v1.EventTrackerService/TrackEvents"


def measure(stage: Stage) -> Figures:
    """See the module."""
    run = stage.mesh()
    keys = "1:" + secrets.token_hex(32)
    bodies = _bodies(keys)
    with run.service("tracker", BANDITMESH_TOKEN_KEYS=keys) as tracker:
        asyncio.run(_full(tracker.address, bodies[: len(bodies) // 5]))  # warm
        before_s = metrics(tracker)["process_cpu_seconds_total"]
        per_second = asyncio.run(_full(tracker.address, bodies))
        cpu_us = 1e6 * (metrics(tracker)["process_cpu_seconds_total"] - before_s) / EVENTS
        p50, p99 = asyncio.run(_half(tracker.address, bodies, per_second / 2))
    bare = run.bare("produce", run.topics.impressions, EVENTS)
    return {
        "per_second": per_second,
        "bare_per_second": bare["per_second"],
        "ratio": per_second / bare["per_second"],
        "cpu_us": cpu_us,
        "bare_cpu_us": bare["cpu_us"],
        "half_load_p50_ms": p50,
        "half_load_p99_ms": p99,
    }


def _bodies(keys: str) -> list[bytes]:
    ring = KeyRing.parse(keys)
    now_ms = int(time.time() * 1000)
    events = []
    for each in decisions(EVENTS):
        each.decided_at_ms = now_ms
        events.append(tracker_pb2.Event(impression_token=ring.sign(each), shown=tracker_pb2.Shown()))
    return [
        tracker_pb2.TrackEventsRequest(events=events[at : at + AT_ONCE]).SerializeToString()
        for at in range(0, EVENTS, AT_ONCE)
    ]


async def _full(address: str, bodies: list[bytes]) -> float:
    """Events a second with as many calls under way as fill it."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(_METHOD)
        waiting = iter(bodies)

        async def caller() -> None:
            for body in waiting:
                answer = tracker_pb2.TrackEventsResponse.FromString(await call(body, timeout=60))
                assert answer.accepted == AT_ONCE, answer.results[0]

        began = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(CALLS)))
        return AT_ONCE * len(bodies) / (time.monotonic() - began)


async def _half(address: str, bodies: list[bytes], per_second: float) -> tuple[float, float]:
    """Milliseconds of a call of 50 events, arriving at that rate: median and 99th percentile."""
    small = 50
    parts = []
    for body in bodies[:20]:
        events = tracker_pb2.TrackEventsRequest.FromString(body).events
        for at in range(0, AT_ONCE, small):
            parts.append(tracker_pb2.TrackEventsRequest(events=events[at : at + small]).SerializeToString())
    times: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(_METHOD)

        async def one(body: bytes) -> None:
            began = time.monotonic()
            await call(body, timeout=60)
            times.append(1000 * (time.monotonic() - began))

        began, sent, tasks = time.monotonic(), 0, []
        while (now := time.monotonic() - began) < HALF_LOAD_S:
            while sent * small < now * per_second:
                tasks.append(asyncio.create_task(one(parts[sent % len(parts)])))
                sent += 1
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
    return percentile(times, 50), percentile(times, 99)
