"""What an overloaded CRS Engine still answers: selections a second, by how many callers want one at the same time.

Callers ask for one content each over a real socket, with a deadline, again and again. ``client`` ones use the client
library, ``patient`` ones wait as long as a refusal tells them to (``RetryInfo``), ``eager`` ones come back at once.
``rate``: calls come at a rate, whatever becomes of those before: multiples of the most that the engine answers.
Goodput is what was answered within the deadline; beside it stands what the engine answered in a second of its own CPU
time, which a busy machine disturbs less. The engine has one core, the callers another.
``python -m benchmarks.overload [--json] [--seconds 4] [--deadline 0.5] [--callers 50,150,3000] [--times 1,3]``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import uvloop

from banditmesh.client import ClientLimits, MeshClient
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2_grpc
from banditmesh.local.valkey import Valkey
from banditmesh.runtime.errors import MeshError, from_rpc_error
from banditmesh.runtime.logging import configure_logging
from banditmesh.runtime.redis import RedisClient
from benchmarks.engine import USERS, child, cpu_s, fill, publish_model
from benchmarks.raw_calls import calls_at_rate

CALLERS = "50,150,500,1000,2000,3000"
TIMES = "1,1.5,2,3,5"
METHOD = "/banditmesh.crs_engine.v1.CrsEngineService/SelectContent"
FIRST_RATE, STEP = 400.0, 1.25
"""Calls a second with which the search for the most begins, and what it grows by as long as nearly all are answered."""


@dataclass(frozen=True)
class Load:
    """How hard it is tried."""

    callers: int
    seconds: float
    deadline_s: float


async def measure(pid: int, port: int, load: Load, patient: bool) -> tuple[Counter[str], float]:
    """How many calls had which outcome, and the engine's CPU seconds meanwhile."""
    outcomes: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = crs_engine_pb2_grpc.CrsEngineServiceStub(channel)

        async def caller(number: int, until_s: float) -> None:
            request = pb.SelectContentRequest(placement="head", user_id=f"user-{number % USERS}")
            while time.perf_counter() < until_s:
                try:
                    await stub.SelectContent(request, timeout=load.deadline_s)
                    outcomes["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    outcomes[error.code().name] += 1
                    after_s = from_rpc_error(error).retry_after_s
                    if patient and after_s is not None:
                        await asyncio.sleep(min(after_s, max(0.0, until_s - time.perf_counter())))

        async def run(length_s: float) -> None:
            until_s = time.perf_counter() + length_s
            await asyncio.gather(*(caller(number, until_s) for number in range(load.callers)))

        await run(load.seconds / 2)
        outcomes.clear()
        before_s = cpu_s(pid)
        await run(load.seconds)
    return outcomes, cpu_s(pid) - before_s


async def measure_client(pid: int, port: int, load: Load) -> tuple[Counter[str], float]:
    """As :func:`measure`, through the client library, whose selections travel together."""
    outcomes: Counter[str] = Counter()
    address = f"127.0.0.1:{port}"
    async with MeshClient(address, address, limits=ClientLimits(deadline_s=load.deadline_s)) as client:

        async def caller(number: int, until_s: float) -> None:
            while time.perf_counter() < until_s:
                try:
                    await client.select("head", f"user-{number % USERS}")
                    outcomes["OK"] += 1
                except MeshError as error:
                    outcomes[error.code.name] += 1

        async def run(length_s: float) -> None:
            until_s = time.perf_counter() + length_s
            await asyncio.gather(*(caller(number, until_s) for number in range(load.callers)))

        await run(load.seconds / 2)
        outcomes.clear()
        before_s = cpu_s(pid)
        await run(load.seconds)
    return outcomes, cpu_s(pid) - before_s


async def saturation(port: int, load: Load) -> float:
    """The most answers a second, found by calling more and more often until one in ten is not answered."""
    best, rate = 0.0, FIRST_RATE
    while True:
        good = (await at_rate(port, rate, load))["OK"] / load.seconds
        best = max(best, good)
        if good < 0.9 * rate:
            return best
        rate *= STEP


async def at_rate(port: int, rate: float, load: Load) -> Counter[str]:
    """How many calls had which outcome."""
    requests = [
        pb.SelectContentRequest(placement="head", user_id=f"user-{number}").SerializeToString()
        for number in range(USERS)
    ]
    return await calls_at_rate(port, METHOD, requests, rate=rate, seconds=load.seconds, deadline_s=load.deadline_s)


async def run_rates(folder: Path, url: str, times: list[float], load: Load) -> dict[str, tuple[float, str]]:
    """The figures of ``rate``, each of an engine of its own."""
    figures: dict[str, tuple[float, str]] = {}
    with alone(folder, url) as (_, port):
        most = await saturation(port, load)
    figures["overload.rate.saturation"] = (most, "calls/s")
    for each in times:
        with alone(folder, url) as (_, port):
            await at_rate(port, most / 2, load)
            outcomes = await at_rate(port, each * most, load)
        name = f"overload.rate.{each:g}x"
        figures[f"{name}.share"] = (outcomes["OK"] / load.seconds / most, "of saturation")
        for code, count in outcomes.items():
            figures[f"{name}.{'goodput' if code == 'OK' else code.lower()}"] = (count / load.seconds, "calls/s")
    return figures


@contextmanager
def alone(folder: Path, url: str) -> Iterator[tuple[int, int]]:
    """An engine's process and port; it has the first core, this process the others."""
    with child("--serve", str(folder), url) as (pid, port):
        cores = sorted(os.sched_getaffinity(0))
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        try:
            yield pid, port
        finally:
            os.sched_setaffinity(0, cores)


async def run(
    manners: list[str], callers_wanted: list[int], times: list[float], seconds: float, deadline_s: float
) -> dict[str, tuple[float, str]]:
    """All figures."""
    figures: dict[str, tuple[float, str]] = {}
    with tempfile.TemporaryDirectory() as name, Valkey(Path(name) / "valkey", options={"appendonly": "no"}) as valkey:
        folder, rng, redis = Path(name), np.random.default_rng(0), RedisClient(valkey.url, timeout_s=30.0)
        await fill(redis, rng)
        await redis.close()
        await publish_model(folder / "store", rng)
        if "rate" in manners:
            figures |= await run_rates(folder, valkey.url, times, Load(0, seconds, deadline_s))
        for manner in (each for each in manners if each != "rate"):
            for callers in callers_wanted:
                load = Load(callers, seconds, deadline_s)
                with alone(folder, valkey.url) as (pid, port):
                    outcomes, used_s = await (
                        measure_client(pid, port, load)
                        if manner == "client"
                        else measure(pid, port, load, manner == "patient")
                    )
                figures[f"overload.{manner}.{callers}.per_cpu"] = (outcomes["OK"] / max(used_s, 0.01), "good/CPU s")
                for code, count in outcomes.items():
                    label = "goodput" if code == "OK" else code.lower()
                    figures[f"overload.{manner}.{callers}.{label}"] = (count / seconds, "calls/s")
    return figures


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--deadline", type=float, default=0.5, help="seconds that callers wait for an answer")
    parser.add_argument("--callers", default=CALLERS, help="how many at once, each of these")
    parser.add_argument("--manners", default="rate,client,patient,eager", help="of the callers, each of these")
    parser.add_argument("--times", default=TIMES, help="what is called at a rate, in multiples of saturation")
    arguments = parser.parse_args()
    configure_logging("benchmark", level="warning")
    callers = [int(each) for each in arguments.callers.split(",")]
    times = [float(each) for each in arguments.times.split(",")]
    manners = arguments.manners.split(",")
    figures = uvloop.run(run(manners, callers, times, arguments.seconds, arguments.deadline))
    for name, (value, unit) in figures.items():
        line = json.dumps({"name": name, "value": round(value, 3), "unit": unit})
        print(line if arguments.json else f"{name:40} {value:12.1f} {unit}")


if __name__ == "__main__":
    main()
