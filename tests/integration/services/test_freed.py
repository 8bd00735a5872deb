"""What served under the former mesh.yaml is freed once the next one is in effect, though the collector does not look at
what services have frozen."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from banditmesh.contracts.joiner.v1 import joiner_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.kafka.producer import Producer
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.settings import load_settings
from banditmesh.runtime.stream import Stream
from services.crs_engine import bootstrap as engine
from services.crs_engine.breaker import Breaker
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.densities import Densities
from services.crs_engine.models import Models
from services.crs_engine.servicer import CrsEngineServicer
from services.crs_engine.settings import EngineSettings
from services.importer import bootstrap as importer
from services.importer.servicer import ImporterServicer
from services.importer.settings import ImporterSettings
from services.joiner import bootstrap as joiner
from services.joiner.servicer import JoinerServicer
from services.joiner.settings import JoinerSettings
from services.learner import bootstrap as learner
from services.learner.learner import Learner
from services.learner.servicer import LearnerServicer
from services.learner.settings import LearnerSettings
from services.learner.shard import Shard
from services.tracker import bootstrap as tracker
from services.tracker.servicer import EventTrackerServicer
from services.tracker.settings import TrackerSettings

TOKEN_KEYS = "1:" + "ab" * 32
MESH = """
services: {{films: {{logics: [similar]}}}}
placements:
  home: {{sources: [films/similar]}}
  end: {{sources: [films/similar], retrieve: {{from: [films], density: {{share: 1, features: 256}}}}}}
vectors: {{dimensions: 8}}
kafka: {{topic_prefix: "{prefix}", partitions: 2}}
"""
JOINER = joiner_pb2.DESCRIPTOR.services_by_name["JoinerService"]
Build = Callable[[Any, Server], Awaitable[object]]


async def build_engine(settings: EngineSettings, server: Server) -> None:
    await engine.build(settings, server, np.random.default_rng(7))


SERVICES: dict[str, tuple[Build, type[Any], ServiceDescriptor, set[type]]] = {
    "engine": (
        build_engine,
        EngineSettings,
        engine.SERVICE,
        {CompiledPlacement, Models, Catalog, Densities, RedisClient, Breaker, CrsEngineServicer},
    ),
    "learner": (
        learner.build,
        LearnerSettings,
        learner.SERVICE,
        {Shard, Learner, Producer, LearnerServicer},
    ),
    "joiner": (joiner.bootstrap, JoinerSettings, JOINER, {Stream, RedisClient, Producer, JoinerServicer}),
    "tracker": (tracker.bootstrap, TrackerSettings, tracker.SERVICE, {Producer, EventTrackerServicer}),
    "importer": (importer.bootstrap, ImporterSettings, importer.SERVICE, {RedisClient, ImporterServicer}),
}


@pytest.fixture
def thawed() -> Iterator[None]:
    """The collector looks at everything again after the test."""
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("thawed")
@pytest.mark.parametrize("service", SERVICES)
async def test_what_served_before_is_freed_though_it_was_frozen(
    service: str, kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    build, settings_type, descriptor, heavy = SERVICES[service]
    await ensure_topics(kafka.bootstrap, Topics.named(fresh_topic_prefix), partitions=2, replication=1)
    config = tmp_path / "mesh.yaml"
    config.write_text(MESH.format(prefix=fresh_topic_prefix))
    known = {
        "config": config,
        "kafka": kafka.bootstrap,
        "redis": fresh_redis,
        "store": f"{tmp_path.as_uri()}/store",
        "token_keys": TOKEN_KEYS,
    }
    settings = load_settings(
        settings_type, {name: value for name, value in known.items() if name in settings_type.model_fields}
    )

    async def bootstrap() -> None:
        await build(settings, server)
        gc.collect(1)
        gc.freeze()

    others = found(heavy)
    server = Server(ServerOptions(grace_s=5.0))
    await bootstrap()
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for generation in range(1, 4):
            await call_all(channel, descriptor)
            former = [weakref.ref(each) for each in found(heavy) if not any(each is other for other in others)]
            assert {type(each()) for each in former} == heavy
            await server.rebuild(bootstrap)
            await call_all(channel, descriptor)
            gc.collect()
            alive = {type(each()).__name__ for each in former if each() is not None}
            assert not alive, f"of generation {generation}"


def found(types: set[type]) -> list[object]:
    """All objects of these types."""
    gc.unfreeze()  # what is frozen is not listed
    gc.collect()
    there = [each for each in gc.get_objects() if type(each) in types]
    gc.freeze()
    return there


async def call_all(channel: grpc.aio.Channel, service: ServiceDescriptor) -> None:
    """Call every method that does not stream, whatever it says to an empty request."""
    for method in service.methods:
        if not method.client_streaming and not method.server_streaming:
            with suppress(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/{service.full_name}/{method.name}")(b"", timeout=10)
