"""What a selection costs: the CRS Engine over a real Valkey, 30 candidates of 5 services, 16 features, LinUCB.

The ratios are multiples of an empty ``grpc.aio`` unary handler in the same run: selections a second by calls a second,
with the server and the one who calls it on the same core, Valkey elsewhere. Beside them stands what a selection costs
the serving process in CPU time, gRPC included. ``python -m benchmarks.engine [--json] [--seconds 4] [--profile]``
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

from banditmesh.bandits import hashing
from banditmesh.bandits.batch import Examples, SparseRows
from banditmesh.bandits.registry import build
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2_grpc
from banditmesh.contracts.provider.v1.provider_pb2 import Attribute, Content
from banditmesh.local.valkey import Valkey
from banditmesh.runtime import keys, packing
from banditmesh.runtime.logging import configure_logging
from banditmesh.runtime.memory import freeze_heap
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import open_store
from banditmesh.runtime.user_record import CLICKS, Position, UserRecord
from services.crs_engine import bootstrap
from services.crs_engine.metrics import STAGES
from services.crs_engine.pipeline.batch import SelectionRequest
from services.crs_engine.settings import EngineSettings

USERS = 10_000
CONTENTS = 20_000
SERVICES = 5
CANDIDATES = 6
"""Of each service; 30 in all."""
BATCHES = (8, 32, 128)
TTL_MS = 3_600_000
MESH = """
services:
  s0: {logics: [a]}
  s1: {logics: [a]}
  s2: {logics: [a]}
  s3: {logics: [a]}
  s4: {logics: [a]}
placements:
  head:
    sources: [s0/a, s1/a, s2/a, s3/a, s4/a]
    features:
      profile: [gender, age_band, country, occupation]
      state: [feedback]
      context: [hour, weekday]
      content: [service, logic, category, year]
      crosses: [[age_band, service], [age_band, category], [gender, category], [country, category], [hour, service]]
    experiment:
      variants:
        learned: {weight: 1, policy: {linucb: {arm: logic, dimension: 16}}, explore: {ucb: {alpha: 0.5, floor: 0.01}}}
engine: {redis_timeout: 5s}
"""


async def fill(redis: RedisClient, rng: np.random.Generator) -> None:
    """Write what an importer and a joiner would have written."""
    pipeline = redis.client.pipeline(transaction=False)
    by_service = []
    for service in range(SERVICES):
        name = f"s{service}"
        ids = [f"{name}-{number}" for number in range(CONTENTS // SERVICES)]
        by_service.append(np.array([hashing.content_key(name, each) for each in ids], np.uint64))
        for each, key in zip(ids, by_service[-1].tolist(), strict=True):
            category, year = rng.integers(12), rng.integers(60, 100)
            content = Content(
                content_id=each,
                title=f"The title of {each}",
                uri=f"app://{name}/{each}",
                attributes=[
                    Attribute(name="category", values=[f"c{category}"]),
                    Attribute(name="year", number=year / 100),
                ],
            )
            pipeline.set(keys.content(key), packing.pack_content(name, content.SerializeToString()), px=TTL_MS)
        pipeline.set(keys.live(f"{name}/a"), packing.LiveVersion(1, 0, "v1").pack(), px=TTL_MS)
    pipeline.set(keys.live(keys.PROFILES), packing.LiveVersion(1, 0, "v1").pack(), px=TTL_MS)
    await pipeline.execute()
    for start in range(0, USERS, 1000):
        pipeline = redis.client.pipeline(transaction=False)
        for user in range(start, start + 1000):
            _fill_user(pipeline, f"user-{user}", by_service, rng)
        await pipeline.execute()


def _fill_user(pipeline: Any, user: str, by_service: list[np.ndarray[Any, Any]], rng: np.random.Generator) -> None:
    tag = keys.user_tag(user)
    for service, contents in enumerate(by_service):
        proposed = rng.choice(contents, CANDIDATES, replace=False)
        value = packing.pack_candidates(1, proposed, np.linspace(1, 0, CANDIDATES, dtype=np.float32))
        pipeline.set(keys.candidates(tag, f"s{service}/a", 0), value, px=TTL_MS)
    profile: packing.Profile = {
        "gender": "fm"[rng.integers(2)],
        "age_band": f"{rng.integers(1, 8)}0s",
        "country": ("jp", "tw", "th", "id")[rng.integers(4)],
        "occupation": f"o{rng.integers(20)}",
    }
    pipeline.set(keys.profile(tag, 0), packing.pack_profile(1, profile), px=TTL_MS)
    record = UserRecord.empty().moved(Position("reactions", 1, 7)).moved(Position("shown", 2, 7))
    for service in rng.integers(SERVICES, size=rng.integers(0, 6)).tolist():
        clicked = int(rng.choice(by_service[service]))
        record = record.remembered(CLICKS, 1_700_000_000, clicked, hashing.service_key(f"s{service}"), 0)
        record = record.counted(feedback=1, clicks=1)
    for service in rng.integers(SERVICES, size=rng.integers(0, 13)).tolist():
        record = record.shown(1_700_000_000, int(rng.choice(by_service[service])), hashing.service_key(f"s{service}"))
    pipeline.set(keys.state(tag), record.pack(), px=TTL_MS)


async def publish_model(folder: Path, rng: np.random.Generator) -> None:
    """A trained model, as the learner would publish it."""
    variant = parse_mesh(MESH).placements["head"].experiment.variants["learned"]
    policy = build(variant.policy_name, variant.policy_params)
    n, width = 20_000, 16
    logics = np.array([hashing.logic_key(f"s{service}", "a") for service in range(SERVICES)], np.uint64)
    features = SparseRows(
        np.arange(n + 1) * width, rng.integers(0, 2**32, n * width, np.uint32), np.ones(n * width, np.float32)
    )
    some = np.zeros(n, np.uint64)
    rewards = rng.choice(np.array([0.0, 0.5, 1.0], np.float32), n)
    policy.learn(
        Examples(
            some,
            rng.choice(logics, n),
            some,
            features,
            rewards,
            np.ones(n, np.float32),
            1.7e9 + np.arange(n, dtype=np.float64),
            rewards == 1,
        )
    )
    manifest = Manifest(
        "head", variant.model, variant.policy_name, variant.policy_params, 0, 1_700_000_000_000, n, {0: n}, {0: n}
    )
    store = open_store(f"file://{folder}")
    await Snapshots(store, None).publish(manifest, policy.tensors(), after=None)
    await store.close()


def engine_settings(folder: Path, redis: str) -> EngineSettings:
    """Settings of the engine under test."""
    (folder / "mesh.yaml").write_text(MESH)
    return EngineSettings(
        config=folder / "mesh.yaml", redis=redis, store=f"file://{folder}/store", token_keys="1:" + "ab" * 32
    )


# -- the servers under test, each a process of its own


async def serve_empty() -> None:
    """The yardstick: a handler that does nothing, without interceptors."""
    server = grpc.aio.server()

    async def nothing(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return b""

    method = grpc.unary_unary_rpc_method_handler(nothing)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("empty.Empty", {"Do": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def serve_engine(folder: Path, redis: str) -> None:
    """The engine, as its own process would run it."""
    settings = engine_settings(folder, redis)
    server = Server(ServerOptions(max_waiting_rpcs=settings.max_waiting_rpcs))
    await bootstrap.bootstrap(settings, server)
    async with server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


@contextmanager
def one_core() -> Iterator[None]:
    """This process, and the children that it starts within, run on the first core that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def child(*arguments: str) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its pid and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.engine", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, in the kernel and outside."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(pid: int, call: Callable[[int], Awaitable[object]], seconds: float, at_once: int) -> tuple[float, float]:
    """Call for so long, ``at_once`` callers in a loop each. Returns the server's CPU seconds and wall seconds for one
    call."""
    done = 0

    async def caller(number: int, until_s: float) -> None:
        nonlocal done
        while time.perf_counter() < until_s:
            await call(number + done)
            done += 1

    async def run(length_s: float) -> None:
        until_s = time.perf_counter() + length_s
        await asyncio.gather(*(caller(number * 7919, until_s) for number in range(at_once)))

    await run(min(1.0, seconds / 2))  # caches fill, the interpreter specialises
    done, began_cpu_s, began_s = 0, cpu_s(pid), time.perf_counter()
    await run(seconds)
    return (cpu_s(pid) - began_cpu_s) / done, (time.perf_counter() - began_s) / done


async def measure_calls(folder: Path, redis: str, seconds: float) -> dict[str, tuple[float, str]]:
    """Selections over sockets."""
    figures: dict[str, tuple[float, str]] = {}
    with (
        one_core(),
        child("--serve-empty") as (empty_pid, empty_port),
        child("--serve", str(folder), redis) as (pid, port),
    ):
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{empty_port}") as empty_channel,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            do = empty_channel.unary_unary("/empty.Empty/Do")
            stub = crs_engine_pb2_grpc.CrsEngineServiceStub(channel)
            empty_cpu_s, empty_s = await load(empty_pid, lambda _: do(b""), seconds, 32)
            figures["engine.empty.rate"] = (1 / empty_s, "calls/s")
            figures["engine.empty.cpu"] = (empty_cpu_s * 1e6, "us/call")

            async def select(number: int) -> None:
                await stub.SelectContent(pb.SelectContentRequest(placement="head", user_id=f"user-{number % USERS}"))

            for first in range(0, USERS, 500):  # every content comes into the catalog
                await stub.BatchSelectContents(
                    pb.BatchSelectContentsRequest(
                        requests=[
                            pb.SelectContentRequest(placement="head", user_id=f"user-{user}")
                            for user in range(first, first + 500)
                        ]
                    )
                )
            unary_cpu_s, unary_s = await load(pid, select, seconds, 64)
            figures["engine.unary.ratio"] = (empty_s / unary_s, "x empty grpc.aio")
            figures["engine.unary.cpu"] = (unary_cpu_s * 1e6, "us/selection")
            figures["engine.unary.rate"] = (1 / unary_s, "selections/s")
            for size in BATCHES:
                # Made before: what it costs to write requests is not the question.
                requests = [
                    pb.BatchSelectContentsRequest(
                        requests=[
                            pb.SelectContentRequest(placement="head", user_id=f"user-{(first + each) % USERS}")
                            for each in range(size)
                        ]
                    )
                    for first in range(0, USERS, size)
                ]

                async def batch(number: int, requests: list[pb.BatchSelectContentsRequest] = requests) -> None:
                    await stub.BatchSelectContents(requests[number % len(requests)])

                batch_cpu_s, batch_s = await load(pid, batch, seconds, 4)
                figures[f"engine.batch{size}.ratio"] = (empty_s * size / batch_s, "x empty grpc.aio")
                figures[f"engine.batch{size}.cpu"] = (batch_cpu_s / size * 1e6, "us/selection")
                figures[f"engine.batch{size}.rate"] = (size / batch_s, "selections/s")
    return figures


async def measure_stages(folder: Path, redis: str, seconds: float, profile: bool) -> dict[str, tuple[float, str]]:
    """Selections in this process, stage by stage."""
    server = Server(ServerOptions())
    figures: dict[str, tuple[float, str]] = {}
    parts = await bootstrap.build(engine_settings(folder, redis), server, np.random.default_rng(1))
    freeze_heap()
    async with server:
        for size in (1, *BATCHES):
            requests = [
                [SelectionRequest("head", f"user-{(start + each) % USERS}", {}) for each in range(size)]
                for start in range(0, USERS, size)
            ]
            for batch in requests:
                await parts.engine.select(batch)
            before = {stage: _stage_s(parts, stage) for stage in STAGES}
            profiler = cProfile.Profile()
            if profile and size == 32:
                profiler.enable()
            done, began_s, until_s = 0, time.process_time(), time.perf_counter() + seconds
            while time.perf_counter() < until_s:
                await parts.engine.select(requests[done % len(requests)])
                done += 1
            used_s = time.process_time() - began_s
            profiler.disable()
            if profile and size == 32:
                pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
            figures[f"engine.stages{size}.cpu"] = (used_s / (done * size) * 1e6, "us/selection")
            for stage in STAGES:
                spent_s = _stage_s(parts, stage) - before[stage]
                figures[f"engine.stages{size}.{stage}"] = (spent_s / (done * size) * 1e6, "us/selection")
    return figures


def _stage_s(parts: bootstrap.Parts, stage: str) -> float:
    return next(
        sample.value
        for metric in parts.metrics.stage_seconds.collect()
        for sample in metric.samples
        if sample.name.endswith("_sum") and sample.labels["stage"] == stage
    )


async def run(seconds: float, profile: bool) -> dict[str, tuple[float, str]]:
    """All figures."""
    with tempfile.TemporaryDirectory() as name, Valkey(Path(name) / "valkey", options={"appendonly": "no"}) as valkey:
        folder = Path(name)
        rng = np.random.default_rng(0)
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(valkey.pid, cores - {min(cores)} or cores)
        redis = RedisClient(valkey.url, timeout_s=30.0)
        before = int((await redis.client.info("memory"))["used_memory"])
        await fill(redis, rng)
        filled = (await redis.client.info("memory"))["used_memory"] - before
        tags = [keys.user_tag(f"user-{user}") for user in range(0, USERS, 100)]
        around = keys.around_tag([keys.candidates_tail(f"s{service}/a", 0) for service in range(SERVICES)], 0)
        sizes = [await redis.client.memory_usage(key) or 0 for tag in tags for key in keys.of_user(tag, around)]
        await publish_model(folder / "store", rng)
        figures = {
            "engine.redis.per_user": (sum(sizes) / len(tags), "bytes"),
            "engine.redis.used_per_user": (filled / USERS, "bytes, contents included"),
        }
        figures |= await measure_stages(folder, valkey.url, seconds, profile)
        figures |= await measure_calls(folder, valkey.url, seconds)
        await redis.close()
        return figures


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--profile", action="store_true", help="print a profile of batches of 32")
    parser.add_argument("--serve-empty", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "REDIS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure_logging("benchmark", level="warning")
    if arguments.serve_empty:
        uvloop.run(serve_empty())
    elif arguments.serve:
        uvloop.run(serve_engine(Path(arguments.serve[0]), arguments.serve[1]))
    else:
        for name, (value, unit) in uvloop.run(run(arguments.seconds, arguments.profile)).items():
            line = json.dumps({"name": name, "value": round(value, 3), "unit": unit})
            print(line if arguments.json else f"{name:32} {value:12.2f} {unit}")


if __name__ == "__main__":
    main()
