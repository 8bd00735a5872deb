"""Builds the engine: the only place where its clients are made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2, crs_engine_pb2_grpc
from banditmesh.runtime import keys
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.memory import freeze_heap
from banditmesh.runtime.mesh import Mesh, load_mesh
from banditmesh.runtime.metrics import RedisMetrics
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.redis_health import RedisHealth
from banditmesh.runtime.serve import Server
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.stops import Stops
from banditmesh.runtime.store import Store, connect
from banditmesh.runtime.store.kept import KeptStore
from banditmesh.runtime.token import KeyRing
from services.crs_engine.batching import Batcher
from services.crs_engine.breaker import Breaker
from services.crs_engine.cache_keeper import CacheKeeper
from services.crs_engine.catalog import Catalog
from services.crs_engine.densities import Densities
from services.crs_engine.engine import Engine, RedisReads
from services.crs_engine.explain import Explainer
from services.crs_engine.kept_contents import KeptContents
from services.crs_engine.live import BLOCK_S, LiveFollower
from services.crs_engine.live_contents import LiveContents
from services.crs_engine.maintenance import Maintenance
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.models import Models
from services.crs_engine.pipeline import retrievers
from services.crs_engine.pipeline.hydrate import Hydrator
from services.crs_engine.pipeline.pipeline import Pipeline
from services.crs_engine.prepared import Prepared, prepare
from services.crs_engine.rule_cost import RuleCosts
from services.crs_engine.sampled_decisions import Sampler
from services.crs_engine.selection_counts import SelectionCounts
from services.crs_engine.servicer import CrsEngineServicer
from services.crs_engine.settings import EngineSettings
from services.crs_engine.stopped_variants import StoppedVariants

log = get_logger(__name__)

SERVICE: Final = crs_engine_pb2.DESCRIPTOR.services_by_name["CrsEngineService"]
CATALOG: Final = "catalog"
WARMED: Final = 50_000
WARMED_AT_ONCE: Final = 100
"""Some milliseconds of the event loop."""
FIRST_LOAD_S: Final = 20.0
"""How long the start waits for the first snapshots and pointers; after that it serves with what there is."""
STREAM_TIMEOUT_S: Final = BLOCK_S + 3.0


@dataclass(frozen=True)
class Parts:
    """What was built, for a test or a benchmark that wants to look inside."""

    engine: Engine
    models: Models
    densities: Densities
    live: LiveFollower
    catalog: Catalog
    batcher: Batcher
    maintenance: Maintenance
    metrics: EngineMetrics


async def bootstrap(settings: EngineSettings, server: Server) -> None:
    """Register the engine with a server, in a process of its own. Raises ConfigurationError."""
    await build(settings, server, np.random.default_rng())
    freeze_heap()


async def build(settings: EngineSettings, server: Server, rng: np.random.Generator) -> Parts:
    """See :func:`bootstrap`. ``rng``: what exploration draws from."""
    ring = KeyRing.parse(settings.token_keys.get_secret_value())
    mesh = await asyncio.to_thread(load_mesh, settings.config, server.mesh_text)
    prepared = await asyncio.to_thread(prepare, mesh)
    placements, catalog = prepared.placements, prepared.catalog
    server.guard(mesh.access)
    clock, metrics = server.clock, EngineMetrics(server.registry)
    redis_metrics = RedisMetrics(server.registry)
    redis = RedisClient(settings.redis, timeout_s=mesh.engine.redis_timeout, metrics=redis_metrics)
    # A client of its own: reading the stream blocks for longer than any selection may wait.
    stream = RedisClient(settings.redis, timeout_s=STREAM_TIMEOUT_S, max_connections=4, metrics=redis_metrics)
    store = _store(settings)

    contents = LiveContents(stream, catalog, prepared.followed, clock, metrics)
    live = LiveFollower(stream, [*prepared.sources, keys.PROFILES], catalog.mark_changed, clock, metrics)
    snapshots = Snapshots(store, settings.model_cache)
    models = Models.of(mesh, snapshots, clock, metrics, prepared.priors)
    densities = Densities(mesh, snapshots, catalog, clock, metrics)
    newest = retrievers.Newest(catalog, mesh.engine.fallback_contents)
    pipeline = Pipeline(
        catalog,
        models,
        densities,
        retrievers.Retrievers(
            [retrievers.Popularity(models, catalog), newest],
            [retrievers.Density(densities), retrievers.Als(models, catalog)],
        ),
        prepared.filters,
        prepared.rules,
        ring,
        clock,
        metrics,
        rng,
    )
    hydrator = Hydrator(catalog, redis, clock, metrics)
    # A read, and not a ping: a node that cannot be read may well answer a ping.
    breaker = Breaker(clock, lambda: redis.read([keys.live(keys.PROFILES)]), metrics)
    keeper = CacheKeeper(redis, breaker, pipeline.rules, clock, metrics)
    selections = SelectionCounts(store, clock, metrics)
    reads = RedisReads(redis, breaker, live, hydrator, metrics)
    engine = Engine(placements, pipeline, reads, metrics, RuleCosts(metrics), keeper, selections)
    engine = replace(engine, sampler=_sampler(settings, mesh, server, prepared, metrics))
    batcher = Batcher(
        engine.select,
        mesh.engine.max_batch,
        clock,
        metrics,
        mesh.engine.max_waiting,
        arrivals=server.calls_taken,
        crowded=server.overflows,
    )
    explainer = Explainer(engine, mesh.token.max_age)
    kept = KeptContents(_kept(settings) / "contents.jsonl", catalog, clock) if settings.keep_models else None
    maintenance = Maintenance(engine, newest, clock, metrics, kept)

    stopped = StoppedVariants(placements, Stops(store), clock, metrics)

    server.add_service(
        SERVICE,
        crs_engine_pb2_grpc.add_CrsEngineServiceServicer_to_server,
        CrsEngineServicer(placements, batcher, explainer, models),
        doors={"SelectContent": batcher.refusal, "RecommendContents": batcher.refusal},
    )
    # Neither is critical: without Redis the fallback answers, without a store the models that are loaded.
    server.check(
        "redis",
        redis.ping,
        critical=False,
        meanwhile="the fallback answers, by what is remembered of users; mappings and contents stay as they were",
        where=str(redis.address),
    )
    server.check(
        "redis settings",
        RedisHealth(redis, relies=False).keeps,
        interval_s=60.0,
        critical=False,
        silence_of="redis",
        where=str(redis.address),
    )
    server.check(
        "store",
        store.ping,
        critical=False,
        meanwhile="models and stopped variants stay as they are",
        where=store.location,
    )
    server.background("change stream", live.follow, critical=False)
    server.background("live versions", live.reread_for_ever, critical=False)
    server.background("live contents", contents.run, critical=False)
    server.background("models", lambda: models.poll_for_ever(mesh.engine.model_poll), critical=False)
    server.background("selections", selections.run, critical=False)
    server.background("stopped variants", lambda: stopped.run(mesh.engine.model_poll), critical=False)
    server.background("densities", densities.run, critical=False)
    server.background("newest", lambda: newest.run(placements.values(), clock), critical=False)
    server.background("maintenance", maintenance.run, critical=False)
    server.on_stop("cache", keeper.close)
    server.on_stop("redis", redis.close)
    server.on_stop("redis probe", breaker.stop)
    server.on_stop("change stream", stream.close)
    server.on_stop("store", store.close)
    server.on_stop("selections", selections.write)
    former = server.kept.get(CATALOG)
    if former is not None:  # another mesh.yaml: who takes over must know what is known already, or wait
        await redis.ping()
        await store.ping()
    if kept is not None:
        await kept.restore()
    await _first_load(models, maintenance, live, contents, densities, stopped)
    await _warm(engine, former)
    server.kept[CATALOG] = catalog
    return Parts(engine, models, densities, live, catalog, batcher, maintenance, metrics)


def _sampler(
    settings: EngineSettings, mesh: Mesh, server: Server, prepared: Prepared, metrics: EngineMetrics
) -> Sampler | None:
    """What hands sampled decisions to Kafka; None when no placement samples, or there is no Kafka."""
    sampling = list(prepared.rebuilt)
    if not sampling:
        return None
    if settings.kafka is None:
        log.warning("no decisions are sampled: this engine knows no Kafka", placements=sampling, set="BANDITMESH_KAFKA")
        return None
    # An engine that samples nothing needs no Kafka client.
    from banditmesh.runtime.kafka.producer import Producer, Record
    from banditmesh.runtime.kafka.topic_check import Topics

    topic = Topics.named(mesh.kafka.topic_prefix).decisions
    producer = Producer(settings.kafka, client_id="engine")

    async def send(records: Sequence[tuple[bytes, bytes]]) -> None:
        await producer.send_many([Record(topic, key, value) for key, value in records])

    sampler = Sampler(prepared.catalog, send, server.clock, metrics, np.random.default_rng(), prepared.rebuilt)
    server.background("sampled decisions", sampler.run, critical=False)
    server.on_stop("sampled decisions", producer.stop)
    return sampler


async def _warm(engine: Engine, former: Catalog | None) -> None:
    """Read the contents that the engine's former self knew: with an empty catalog the first batches would wait for
    them."""
    if former is None:
        return
    known = former.keys(WARMED)
    for start in range(0, len(known), WARMED_AT_ONCE):
        await engine.reads.contents(known[start : start + WARMED_AT_ONCE])


def _store(settings: EngineSettings) -> Store:
    store = connect(settings.store)
    return KeptStore(store, _kept(settings)) if settings.keep_models else store


def _kept(settings: EngineSettings) -> Path:
    """The folder of what an engine has that starts while its servers are away."""
    if settings.model_cache is None:
        raise ConfigurationError(
            "BANDITMESH_KEEP_MODELS is on, and there is no folder to keep them in", hint="set BANDITMESH_MODEL_CACHE"
        )
    return settings.model_cache / "kept"


async def _first_load(
    models: Models,
    maintenance: Maintenance,
    live: LiveFollower,
    contents: LiveContents,
    densities: Densities,
    stopped: StoppedVariants,
) -> None:
    try:
        async with asyncio.timeout(FIRST_LOAD_S):
            await asyncio.gather(models.poll(), live.try_reread(), contents.try_once(), stopped.once())
            await densities.poll()
            await maintenance.once()
    except TimeoutError:
        log.warning("started without everything loaded; it is loaded beside the traffic", waited_s=FIRST_LOAD_S)
