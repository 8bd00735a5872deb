"""A swap of tens of MB under load, through a live engine: its process as it is run, Valkey, gRPC, readers in a process
of their own. ``python -m benchmarks.retrieval`` calls it.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2_grpc
from banditmesh.contracts.provider.v1.provider_pb2 import Content
from banditmesh.demo.news_delays import page, served_version
from banditmesh.local.service import Process
from banditmesh.local.valkey import Valkey
from banditmesh.runtime import keys, packing
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import open_store
from banditmesh.runtime.user_record import UserRecord

SERVICE: Final = "news"
PLACEMENT: Final = "feed"
MESH: Final = """
services: {news: {logics: [none]}}
vectors: {dimensions: 64}
placements:
  feed:
    fallback: none
    retrieve: {density: {share: 100, contents: 2000000, publish_every: 1s}}
    experiment:
      variants:
        near: {weight: 1, policy: {linucb: {arm: logic}}, explore: {epsilon_greedy: {epsilon: 0.05}}}
engine: {redis_timeout: 5s, catalog_size: 200000}
"""
READERS: Final = 300
OPENED: Final = 12
LIST: Final = 10
AT_ONCE: Final = 2
PAUSE_S: Final = 0.005
QUIET_S: Final = 12.0
AFTER_S: Final = 0.5
CHANGED: Final = 20_000
SWAPS: Final = 6
TTL_MS: Final = 3_600_000


class Swapped(NamedTuple):
    """What the readers saw.

    Attributes:
        mib: Of a delta.
        calls: Lists, swaps and quiet together.
        errors: Calls that failed or had too short a list.
        quiet_ms, swap_ms: p99 of a list.
        served_s: From the publication of a delta to an engine that has it, the median.
    """

    mib: float
    calls: int
    errors: int
    quiet_ms: float
    swap_ms: float
    served_s: float


async def fill(redis: RedisClient, names: list[str], rng: np.random.Generator) -> None:
    """Articles with vectors, and readers who opened some."""
    for start in range(0, len(names), 2000):
        pipeline = redis.client.pipeline(transaction=False)
        for name in names[start : start + 2000]:
            vector = packing.pack_vector(rng.standard_normal(64).astype(np.float32))
            value = packing.pack_content(SERVICE, Content(content_id=name).SerializeToString(), vector)
            pipeline.set(keys.content(content_key(SERVICE, name)), value, px=TTL_MS)
        pipeline.sadd(keys.known_contents(SERVICE), *names[start : start + 2000])
        await pipeline.execute()
    pipeline = redis.client.pipeline(transaction=False)
    for reader in range(READERS):
        record = UserRecord.empty()
        for at in rng.choice(len(names), OPENED, replace=False).tolist():
            record = record.tasted("click", 1.0, int(time.time()) - 60, content_key(SERVICE, names[at]), 30)
        pipeline.set(keys.state(keys.user_tag(f"r{reader}")), record.pack(), px=TTL_MS)
    await pipeline.execute()


async def read(port: int, path: Path) -> None:
    """Readers come until ``path`` with another ending says stop; then begin, seconds and success of each call are
    written."""
    calls: list[tuple[float, float, float]] = []
    stop = path.with_suffix(".stop")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = crs_engine_pb2_grpc.CrsEngineServiceStub(channel)

        async def reader(number: int) -> None:
            while not stop.exists():
                number += AT_ONCE
                request = pb.RecommendContentsRequest(placement=PLACEMENT, user_id=f"r{number % READERS}", count=LIST)
                at_s, began = time.time(), time.perf_counter()
                try:
                    answer = await stub.RecommendContents(request, timeout=10)
                    good = len(answer.contents) == LIST
                    if not good:
                        print(f"{len(answer.contents)} contents: {answer.no_content.message}", flush=True)
                except grpc.aio.AioRpcError as error:
                    good = False
                    print(f"{error.code().name}: {error.details()}", flush=True)
                calls.append((at_s, time.perf_counter() - began, float(good)))
                await asyncio.sleep(PAUSE_S)

        await asyncio.gather(*(reader(number) for number in range(AT_ONCE)))
    np.save(path, np.array(calls))


@contextmanager
def readers(port: int, path: Path) -> Iterator[None]:
    """The readers, in a process of their own."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.retrieval_served", str(port), str(path)])
    try:
        yield
    finally:
        path.with_suffix(".stop").touch()
        process.wait(timeout=60)


async def swaps(full: dict[str, NDArray[Any]], names: list[str], folder: Path) -> Swapped:
    """Publish deltas to a full snapshot, whose contents these are, while readers read."""
    mesh = parse_mesh(MESH)
    ((placement, model),) = mesh.densities()
    (folder / "mesh.yaml").write_text(MESH)
    snapshots = Snapshots(open_store(f"file://{folder}/store"), None)
    params = {"features": full["clicks"].shape[1], "dimensions": 64}

    def manifest(base: int) -> Manifest:
        return Manifest(placement, model, "density", params, 0, 0, 0, {}, {}, base=base)

    with Valkey(folder / "valkey", options={"appendonly": "no"}) as valkey:
        redis = RedisClient(valkey.url, timeout_s=30.0)
        await fill(redis, names, np.random.default_rng(1))
        await redis.close()
        full["clock"][:] = time.time()
        pointer = await snapshots.publish(manifest(0), full, after=None)
        env = {
            "BANDITMESH_CONFIG": str(folder / "mesh.yaml"),
            "BANDITMESH_TOKEN_KEYS": f"1:{secrets.token_hex(32)}",
            "BANDITMESH_REDIS": valkey.url,
            "BANDITMESH_STORE": f"file://{folder}/store",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with Process("engine", folder / "engine", logs=folder, argv=["services.crs_engine"], env=env) as engine:
            await asyncio.to_thread(_until, partial(_serves, engine, pointer.version))
            await asyncio.to_thread(_until, partial(_complete, engine, len(names)))
            with readers(engine.ports[0], folder / "calls.npy"):
                await asyncio.sleep(QUIET_S)
                spans, took = [], []
                for turn in range(SWAPS):
                    at = np.sort(np.random.default_rng(turn).choice(len(names), CHANGED, replace=False))
                    delta = {name: array[at] if len(array) == len(names) else array for name, array in full.items()}
                    began = time.time()
                    pointer = await snapshots.publish(manifest(1), delta, after=pointer)
                    took.append(await asyncio.to_thread(_until, partial(_serves, engine, pointer.version)))
                    await asyncio.sleep(AFTER_S)
                    spans.append((began, time.time()))
                    await asyncio.sleep(1.0)
    return _told(np.load(folder / "calls.npy"), spans, sum(each.nbytes for each in delta.values()), took)


def _told(calls: NDArray[np.float64], spans: list[tuple[float, float]], nbytes: int, took: list[float]) -> Swapped:
    at_s, waited_s, good = calls.T
    ends_s = at_s + waited_s
    during = np.zeros(len(calls), np.bool_)
    for begin, end in spans:
        during |= (ends_s >= begin) & (at_s <= end)
    quiet = ~during & (at_s > at_s[0] + 1.0)
    p99s = (1000 * float(np.quantile(waited_s[these], 0.99)) for these in (quiet, during))
    return Swapped(nbytes / 2**20, len(calls), int((good == 0).sum()), *p99s, float(np.median(took)))


def _until(holds: Callable[[], bool], timeout_s: float = 300.0) -> float:
    """How long it took until something held, in seconds. Raises TimeoutError."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError
        time.sleep(0.1)
    return time.monotonic() - began


def _serves(engine: Process, version: int) -> bool:
    return served_version(page(engine.metrics_url), PLACEMENT) >= version


def _complete(engine: Process, articles: int) -> bool:
    """Whether the engine knows every article, and lists are whole."""
    if f'banditmesh_engine_live_contents{{service="{SERVICE}"}} {float(articles)}' not in page(engine.metrics_url):
        return False
    with grpc.insecure_channel(engine.address) as channel:
        request = pb.RecommendContentsRequest(placement=PLACEMENT, user_id="r0", count=LIST)
        answer = crs_engine_pb2_grpc.CrsEngineServiceStub(channel).RecommendContents(request, timeout=30)
        return len(answer.contents) == LIST


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    asyncio.run(read(arguments.port, arguments.path))
