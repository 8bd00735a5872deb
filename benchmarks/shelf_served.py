"""How long a list of ten takes through a real engine, by how many of the users are on the model: with the cache and
without, over a socket. ``python -m benchmarks.shelf`` calls it.

Each share, with and without a cache, is a placement of one mesh, so one engine serves all of them in turns and whatever
else the machine does meets them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import numpy as np
import uvloop

from banditmesh.bandits import hashing
from banditmesh.bandits.als import Als
from banditmesh.bandits.batch import Examples, SparseRows
from banditmesh.bandits.blend import Blend
from banditmesh.bandits.policy import Policy
from banditmesh.bandits.popularity import Popularity
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2_grpc
from banditmesh.contracts.provider.v1.provider_pb2 import Attribute, Content
from banditmesh.demo.movielens import Ratings
from banditmesh.fit.save import publish
from banditmesh.local.valkey import Valkey
from banditmesh.runtime import keys, packing
from banditmesh.runtime.logging import configure_logging
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.store import open_store
from banditmesh.runtime.user_record import UserRecord
from benchmarks.engine import cpu_s
from services.crs_engine import bootstrap
from services.crs_engine.settings import EngineSettings

SERVICE: Final = "films"
SHARES: Final = (0, 25, 50, 75, 100)
USERS: Final = 300
OPENED: Final = 20
"""Films that a user has opened."""
LIST: Final = 10
AT_ONCE: Final = 4
CALLS: Final = 25
"""Of a placement in a turn."""
TURNS: Final = 60
TTL_MS: Final = 3_600_000
PLACEMENT: Final = """
  {name}:
    sources: []
    features: {{content: [genre], multi_valued: {{genre: 3}}}}
    {cache}
    rules: [{{cap_per_attribute: {{attribute: genre, most: 5}}}}, {{spread: {{attribute: genre, apart: 2}}}}]
    experiment:
      salt: shelf
      variants:
        blend:
          weight: {share}
          policy: {{blend: {{}}}}
          explore: {{epsilon_greedy: {{epsilon: 0.05}}}}
          retrieve: {{als: {{share: 100}}, popularity: {{share: 100}}}}
        popular:
          weight: {rest}
          policy: popularity
          explore: {{epsilon_greedy: {{epsilon: 0.05}}}}
          retrieve: {{popularity: {{share: 100}}}}
"""


class Served(NamedTuple):
    """What lists of a placement cost.

    Attributes:
        p50_ms, p99_ms: From call to answer, in the caller's process.
        cpu_ms: Of the engine's process, for a list.
        hits: Share of the lists that came from the cache.
    """

    share: int
    cached: bool
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    hits: float


def placement(share: int, cached: bool) -> str:
    """Its name."""
    return f"on-{share}{'-cached' if cached else ''}"


def mesh() -> str:
    """The ``mesh.yaml``: a placement for each share, with a cache and without."""
    placements = [
        PLACEMENT.format(
            name=placement(share, cached),
            share=share,
            rest=100 - share,
            cache="cache: {max_age: 30m, model_slack: 1h}" if cached else "",
        )
        for share in SHARES
        for cached in (False, True)
    ]
    return f"services:\n  {SERVICE}: {{logics: [all]}}\nplacements:{''.join(placements)}engine: {{redis_timeout: 5s}}\n"


async def fill(redis: RedisClient, ratings: Ratings) -> None:
    """What importer and joiner would have written: all films, and what each user opened."""
    pipeline = redis.client.pipeline(transaction=False)
    for item in ratings.items:
        genres = ratings.films[item].genres if item in ratings.films else ()
        content = Content(content_id=item, attributes=[Attribute(name="genre", values=genres)])
        key = keys.content(hashing.content_key(SERVICE, item))
        pipeline.set(key, packing.pack_content(SERVICE, content.SerializeToString()), px=TTL_MS)
    pipeline.sadd(keys.known_contents(SERVICE), *ratings.items)
    rng, now_s = np.random.default_rng(1), int(time.time())
    for user in range(USERS):
        record = UserRecord.empty()
        for item in rng.choice(len(ratings.items), OPENED, replace=False).tolist():
            record = record.tasted("click", 1.0, now_s - 60, hashing.content_key(SERVICE, ratings.items[item]), 50)
        record = record.counted(feedback=OPENED, clicks=OPENED)
        pipeline.set(keys.state(keys.user_tag(f"user-{user}")), record.pack(), px=TTL_MS)
    await pipeline.execute()


async def publish_models(folder: Path, ratings: Ratings, als: Als) -> None:
    """What the fit and the learner would have published."""
    names = [(SERVICE, item) for item in ratings.items]
    counts = np.bincount(ratings.item, minlength=len(names))
    contents = np.array([hashing.content_key(*name) for name in names], np.uint64)
    services = np.full(len(names), hashing.service_key(SERVICE), np.uint64)
    shown = Examples(
        contents,
        services,
        services,
        SparseRows.empty(len(names)),
        (counts / counts.max()).astype(np.float32),
        np.ones(len(names), np.float32),
        np.full(len(names), time.time()),
        np.zeros(len(names), np.bool_),
        names,
    )
    blend, popularity = Blend(), Popularity()
    policies: list[Policy] = [als, blend, popularity]
    for learned in (blend, popularity):
        learned.learn(shown)
    store = open_store(f"file://{folder}")
    for share in SHARES:
        for cached in (False, True):
            for policy in policies:
                await publish(store, placement(share, cached), policy, 1, now_ms=int(time.time() * 1000))
    await store.close()


async def serve(folder: Path, redis: str) -> None:
    """The engine, in a process of its own: prints its port, and when it ends the results of its cache."""
    settings = EngineSettings(
        config=folder / "mesh.yaml", redis=redis, store=f"file://{folder}/store", token_keys="1:" + "ab" * 32
    )
    server, ended = Server(ServerOptions()), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    parts = await bootstrap.build(settings, server, np.random.default_rng(1))
    async with server:
        print(server.port, flush=True)
        await ended.wait()
        told = {
            f"{sample.labels['placement']} {sample.labels['result']}": sample.value
            for metric in parts.metrics.cached.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }
        print(json.dumps(told), flush=True)


@asynccontextmanager
async def engine(folder: Path, redis: str, told: dict[str, float]) -> AsyncIterator[tuple[int, Any]]:
    """The engine's pid and a stub; ``told`` gets the results of its cache in the end."""
    arguments = (sys.executable, "-m", "benchmarks.shelf_served", str(folder), redis)
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield process.pid, crs_engine_pb2_grpc.CrsEngineServiceStub(channel)
    finally:
        process.terminate()
        out, _ = await process.communicate()
        told.update(json.loads(out or b"{}"))


async def turns(pid: int, stub: Any) -> dict[str, tuple[Sequence[float], float]]:
    """Call placement after placement, turn by turn. Returns seconds of each call, and CPU seconds of the engine."""
    names = [placement(share, cached) for share in SHARES for cached in (False, True)]
    waited: dict[str, list[float]] = {name: [] for name in names}
    used = dict.fromkeys(names, 0.0)
    rng = np.random.default_rng(2)

    async def call(name: str, user: int) -> float:
        began = time.perf_counter()
        request = pb.RecommendContentsRequest(placement=name, user_id=f"user-{user}", count=LIST)
        answer = await stub.RecommendContents(request, timeout=30)
        took = time.perf_counter() - began
        if len(answer.contents) != LIST:
            raise RuntimeError(f"{name}: {len(answer.contents)} of {LIST} contents")
        return took

    async def several(name: str, users: Sequence[int]) -> list[float]:
        at = iter(users)

        async def caller() -> list[float]:
            return [await call(name, user) for user in at]

        return [took for taken in await asyncio.gather(*(caller() for _ in range(AT_ONCE))) for took in taken]

    for name in names:  # the catalog and the caches fill
        await several(name, range(USERS))
    for turn in range(TURNS):
        for name in rng.permutation(names).tolist():
            users = [(turn * CALLS + each) % USERS for each in range(CALLS)]
            before = cpu_s(pid)
            waited[name] += await several(name, users)
            used[name] += cpu_s(pid) - before
    return {name: (waited[name], used[name]) for name in names}


async def measure(ratings: Ratings, als: Als) -> list[Served]:
    """What lists cost, by share and cache."""
    told: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, Valkey(Path(name) / "valkey", options={"appendonly": "no"}) as valkey:
        folder = Path(name)
        (folder / "mesh.yaml").write_text(mesh())
        redis = RedisClient(valkey.url, timeout_s=30.0)
        await fill(redis, ratings)
        await redis.close()
        await publish_models(folder / "store", ratings, als)
        async with engine(folder, valkey.url, told) as (pid, stub):
            found = await turns(pid, stub)
    served = []
    for share in SHARES:
        for cached in (False, True):
            name = placement(share, cached)
            waited, used_s = found[name]
            p50, p99 = (1000 * np.quantile(waited, [0.5, 0.99])).tolist()
            looked = sum(value for key, value in told.items() if key.split()[0] == name) - USERS  # when they filled
            hits = told.get(f"{name} hit", 0.0) / looked if looked > 0 else 0.0
            served.append(Served(share, cached, p50, p99, 1000 * used_s / len(waited), hits))
    return served


def table(served: Sequence[Served]) -> list[str]:
    """Lines of the report."""
    lines = [
        "| share on the blend | without cache: p50, p99 | CPU | with cache: p50, p99 | CPU | hits |",
        "|---|---|---|---|---|---|",
    ]
    for without, cached in zip(served[::2], served[1::2], strict=True):
        lines.append(
            f"| {without.share} % | {without.p50_ms:.2f}, {without.p99_ms:.2f} ms | {without.cpu_ms:.2f} ms | "
            f"{cached.p50_ms:.2f}, {cached.p99_ms:.2f} ms | {cached.cpu_ms:.2f} ms | {cached.hits:.0%} |"
        )
    return lines


def draw(served: Sequence[Served], path: Path) -> None:
    """Response time by the share of users on the model: the median and p99, side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = path.name
    from matplotlib import pyplot as plt

    figure, (median, high) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for cached, color in ((False, "tab:red"), (True, "tab:blue")):
        own = [each for each in served if each.cached == cached]
        label = "with cache" if cached else "without cache"
        shares = [each.share for each in own]
        median.plot(shares, [each.p50_ms for each in own], "-o", color=color, label=label)
        high.plot(shares, [each.p99_ms for each in own], "-o", color=color, label=label)
    for axes, name in ((median, "median"), (high, "p99")):
        axes.set(xlabel="share of the users on the model, %", ylabel=f"{name} of a list of ten, ms", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("redis")
    arguments = parser.parse_args()
    configure_logging("benchmark", level="warning")
    uvloop.run(serve(arguments.folder, arguments.redis))
