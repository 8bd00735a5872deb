"""What an overloaded CRS Engine still answers: selections a second, by how many callers want one at the same time.

Callers ask for one content each over a real socket, with a deadline, again and again. ``client`` ones use the client
library, ``patient`` ones wait as long as a refusal tells them to (``RetryInfo``), ``eager`` ones come back at once.
Goodput is what was answered within the deadline. The engine has one core, the callers another.
``python -m benchmarks.overload [--json] [--seconds 4]``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import Counter
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
from banditmesh.runtime.redis import RedisStore
from benchmarks.engine import USERS, child, fill, publish_model

DEADLINE_S = 0.5
CALLERS = (50, 150, 500, 1000, 2000, 3000)


async def measure(port: int, callers: int, seconds: float, patient: bool) -> Counter[str]:
    """How many calls had which outcome, in ``seconds``."""
    outcomes: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = crs_engine_pb2_grpc.CrsEngineServiceStub(channel)

        async def caller(number: int, until_s: float) -> None:
            request = pb.SelectContentRequest(placement="head", user_id=f"user-{number % USERS}")
            while time.perf_counter() < until_s:
                try:
                    await stub.SelectContent(request, timeout=DEADLINE_S)
                    outcomes["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    outcomes[error.code().name] += 1
                    after_s = from_rpc_error(error).retry_after_s
                    if patient and after_s is not None:
                        await asyncio.sleep(min(after_s, max(0.0, until_s - time.perf_counter())))

        async def run(length_s: float) -> None:
            until_s = time.perf_counter() + length_s
            await asyncio.gather(*(caller(number, until_s) for number in range(callers)))

        await run(seconds / 2)
        outcomes.clear()
        await run(seconds)
    return outcomes


async def measure_client(port: int, callers: int, seconds: float) -> Counter[str]:
    """As :func:`measure`, through the client library, whose selections travel together."""
    outcomes: Counter[str] = Counter()
    address = f"127.0.0.1:{port}"
    async with MeshClient(address, address, limits=ClientLimits(deadline_s=DEADLINE_S)) as client:

        async def caller(number: int, until_s: float) -> None:
            while time.perf_counter() < until_s:
                try:
                    await client.select("head", f"user-{number % USERS}")
                    outcomes["OK"] += 1
                except MeshError as error:
                    outcomes[error.code.name] += 1

        async def run(length_s: float) -> None:
            until_s = time.perf_counter() + length_s
            await asyncio.gather(*(caller(number, until_s) for number in range(callers)))

        await run(seconds / 2)
        outcomes.clear()
        await run(seconds)
    return outcomes


async def run(seconds: float) -> dict[str, tuple[float, str]]:
    """All figures."""
    figures: dict[str, tuple[float, str]] = {}
    with tempfile.TemporaryDirectory() as name, Valkey(Path(name) / "valkey", options={"appendonly": "no"}) as valkey:
        folder, rng, redis = Path(name), np.random.default_rng(0), RedisStore(valkey.url, timeout_s=30.0)
        await fill(redis, rng)
        await redis.close()
        await publish_model(folder / "store", rng)
        for manner in ("client", "patient", "eager"):
            for callers in CALLERS:
                with child("--serve", str(folder), valkey.url) as (pid, port):
                    cores = sorted(os.sched_getaffinity(0))
                    os.sched_setaffinity(pid, cores[:1])
                    os.sched_setaffinity(0, cores[1:] or cores)
                    outcomes = await (
                        measure_client(port, callers, seconds)
                        if manner == "client"
                        else measure(port, callers, seconds, manner == "patient")
                    )
                    os.sched_setaffinity(0, cores)
                for code, count in outcomes.items():
                    label = "goodput" if code == "OK" else code.lower()
                    figures[f"overload.{manner}.{callers}.{label}"] = (count / seconds, "calls/s")
    return figures


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    arguments = parser.parse_args()
    configure_logging("benchmark", level="warning")
    for name, (value, unit) in uvloop.run(run(arguments.seconds)).items():
        line = json.dumps({"name": name, "value": round(value, 3), "unit": unit})
        print(line if arguments.json else f"{name:40} {value:12.1f} {unit}")


if __name__ == "__main__":
    main()
