"""A learner that runs inside the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry

from banditmesh.contracts.learner.v1 import learner_pb2, learner_pb2_grpc
from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.clock import Clock, SystemClock
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.settings import load_settings
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import open_store
from services.learner.bootstrap import Parts, build
from services.learner.settings import LearnerSettings

MESH = """
services: {films: {logics: [similar]}}
placements:
  home:
    sources: [films/similar]
    experiment: {variants: {
      ucb: {weight: 1, policy: {linucb: {dimension: 8}}, explore: {ucb: {}}},
      chance: {weight: 1, policy: random}}}
kafka: {topic_prefix: "%s"}
learning: {snapshot_every: 30s, stall_after: 60s, batch: 64}
"""


@dataclass
class Running:
    """A learner with a connection to it."""

    server: Server
    parts: Parts
    registry: CollectorRegistry
    channel: grpc.aio.Channel
    stub: learner_pb2_grpc.LearnerServiceStub

    async def status(self, policy: str) -> learner_pb2.ShardStatus:
        """The status of the model of that policy, over the socket."""
        answer = await self.stub.GetLearnerStatus(learner_pb2.GetLearnerStatusRequest())
        status: learner_pb2.ShardStatus
        (status,) = [shard for shard in answer.shards if shard.model.startswith(policy)]
        return status

    async def until_learned(self, n: int, *, policy: str = "linucb") -> learner_pb2.ShardStatus:
        """Wait until a model has learned from ``n`` examples."""
        while (status := await self.status(policy)).examples < n:
            await self.turn()
        return status

    async def turn(self) -> None:
        """Wait until the loop has gone round once more; a loop that has died does not."""
        async with asyncio.timeout(30), self.parts.learner.turned:
            await self.parts.learner.turned.wait()

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 when it has none yet."""
        return self.registry.get_sample_value(f"banditmesh_learner_{name}", labels) or 0.0


def settings(folder: Path, kafka: str, store: str, prefix: str, **more: object) -> LearnerSettings:
    """Settings of a learner whose mesh.yaml lies in ``folder``."""
    config = folder / "mesh.yaml"
    config.write_text(MESH % prefix)
    return load_settings(LearnerSettings, {"config": config, "kafka": kafka, "store": store, **more})


@asynccontextmanager
async def running(settings: LearnerSettings, clock: Clock | None = None) -> AsyncIterator[Running]:
    """Start it, connect, stop it in order (which publishes what is not published yet)."""
    registry = CollectorRegistry()
    server = Server(
        ServerOptions(HostPort("127.0.0.1", 0), grace_s=1.0), registry=registry, clock=clock or SystemClock()
    )
    parts = await build(settings, server)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Running(server, parts, registry, channel, learner_pb2_grpc.LearnerServiceStub(channel))


@dataclass(frozen=True)
class Result:
    """What a learner has left in the store."""

    manifest: Manifest
    body: bytes


async def published(store_url: str, model: str) -> Result:
    """The current snapshot of a model."""
    store = open_store(store_url)
    try:
        snapshots = Snapshots(store, None)
        pointer = await snapshots.pointer("home", model)
        assert pointer is not None, "nothing is published"
        key = f"models/home/{model}/{pointer.version:08d}/tensors.safetensors"
        return Result(await snapshots.manifest("home", model, pointer.version), (await store.get(key)).body)
    finally:
        await store.close()
