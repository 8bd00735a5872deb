"""A CRS Engine in this process over real servers, and hands that write to Redis what the importer and the joiner
write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from banditmesh.bandits import hashing
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2_grpc
from banditmesh.contracts.provider.v1.provider_pb2 import Attribute, Content
from banditmesh.runtime import keys, packing
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.user_record import UserRecord
from services.crs_engine.bootstrap import Parts, build
from services.crs_engine.settings import EngineSettings
from tests.support.user_records import reacted

TOKEN_KEYS = "1:" + "ab" * 32
MESH = """
services:
  weather: {logics: [today, tomorrow]}
  comics: {logics: [new, similar]}
placements:
  head:
    sources: [weather/today, weather/tomorrow, comics/new, comics/similar]
    features: {profile: [age], state: [feedback], context: [hour, device], content: [service, logic, genre, year],
      crosses: [[age, genre]]}
    experiment:
      variants:
        learned: {weight: 1, policy: {linucb: {arm: logic}}, explore: {greedy: {}}}
engine: {redis_timeout: 2s, model_poll: 1s}
"""


@dataclass
class Hands:
    """Writes to Redis what the other services write."""

    store: RedisClient
    live: dict[str, packing.LiveVersion] = field(default_factory=dict)

    async def content(self, service: str, content_id: str, *, announce: bool = True, **fields: object) -> int:
        """One content with attributes from ``fields``; ``title``, ``hidden`` and ``expires_at`` are its own. Returns
        its key."""
        own = {name: fields.pop(name) for name in ("title", "hidden", "expires_at") if name in fields}
        attributes = [
            Attribute(name=name, number=value)
            if isinstance(value, float)
            else Attribute(name=name, values=_listed(value))
            for name, value in fields.items()
        ]
        body = Content(content_id=content_id, attributes=attributes, **own).SerializeToString()  # type: ignore[arg-type]
        key = hashing.content_key(service, content_id)
        await self.store.client.set(keys.content(key), packing.pack_content(service, body), px=600_000)
        if announce:
            await self.store.client.xadd(keys.CHANGES, {"kind": "content", "keys": np.array([key], "<u8").tobytes()})
        return key

    async def mapping(
        self, source: str, users: Mapping[str, Sequence[int]], *, flip: bool = True
    ) -> packing.LiveVersion:
        """A new version of a source's mapping: content keys by user. ``flip``: let it go live."""
        before = self.live.get(source, packing.LiveVersion(0, 1, ""))
        version = packing.LiveVersion(before.version + 1, 1 - before.slot, "test")
        for user, contents in users.items():
            value = packing.pack_candidates(version.version, np.array(contents, np.uint64))
            await self.store.client.set(keys.candidates(keys.user_tag(user), source, version.slot), value, px=600_000)
        if flip:
            await self.go_live(source, version)
        return version

    async def go_live(self, source: str, version: packing.LiveVersion) -> None:
        """Move the pointer, and announce it."""
        self.live[source] = version
        await self.store.client.set(keys.live(source), version.pack(), px=600_000)
        await self.store.client.xadd(
            keys.CHANGES, {"kind": "live", "source": source, "version": version.version, "slot": version.slot}
        )

    async def profiles(self, users: Mapping[str, packing.Profile]) -> None:
        """A new version of all profiles."""
        before = self.live.get(keys.PROFILES, packing.LiveVersion(0, 1, ""))
        version = packing.LiveVersion(before.version + 1, 1 - before.slot, "test")
        for user, profile in users.items():
            value = packing.pack_profile(version.version, profile)
            await self.store.client.set(keys.profile(keys.user_tag(user), version.slot), value, px=600_000)
        await self.go_live(keys.PROFILES, version)

    async def reaction(
        self, user: str, kind: str, service: str, content_id: str, placement: str, time_s: float
    ) -> None:
        """A click or a mute, as the joiner puts it into the user's state."""
        key = keys.state(keys.user_tag(user))
        value = await self.store.client.get(key)
        record = UserRecord.empty() if value is None else UserRecord.unpack(value)
        await self.store.client.set(
            key, reacted(record, kind, service, content_id, placement, time_s).pack(), px=600_000
        )


@dataclass(frozen=True)
class World:
    """An engine that serves, and everything around it."""

    server: Server
    parts: Parts
    hands: Hands
    stub: crs_engine_pb2_grpc.CrsEngineServiceAsyncStub

    async def select(self, user: str, placement: str = "head", **context: str) -> pb.Selection:
        """One selection over the socket."""
        response = await self.stub.SelectContent(
            pb.SelectContentRequest(placement=placement, user_id=user, context=context), timeout=10
        )
        return response.selection

    async def shows(self, user: str, expected: Callable[[pb.Selection], bool]) -> pb.Selection:
        """Select again and again until the answer is as expected: what runs beside the traffic has then done its part.

        Raises:
            TimeoutError: It never was, in 20 seconds.
        """
        async with asyncio.timeout(20):
            while not expected(selection := await self.select(user)):
                pass
        return selection

    async def explain(self, user: str, placement: str = "head", count: int = 0) -> pb.ExplainDecisionResponse:
        """A dry run over the socket."""
        request = pb.SelectContentRequest(placement=placement, user_id=user)
        return await self.stub.ExplainDecision(pb.ExplainDecisionRequest(dry_run=request, count=count), timeout=10)


@asynccontextmanager
async def engine_world(
    redis_url: str,
    folder: Path,
    *,
    mesh: str = MESH,
    store: str | None = None,
    clock: Clock | None = None,
    seed: int = 7,
    kafka: str | None = None,
    keep: Path | None = None,
) -> AsyncIterator[World]:
    """Start an engine on a free port; ``folder`` holds its configuration and, unless ``store`` is given, its
    snapshots. ``keep``: where it keeps what it needs to start while its servers are away."""
    config = folder / "mesh.yaml"
    config.write_text(mesh)
    settings = EngineSettings(
        config=config,
        redis=redis_url,
        store=store or f"file://{folder}/store",
        token_keys=TOKEN_KEYS,
        kafka=kafka,
        model_cache=keep,
        keep_models=keep is not None,
    )
    hands = Hands(RedisClient(redis_url, timeout_s=5.0))
    server = Server(ServerOptions(), clock=clock)
    parts = await build(settings, server, np.random.default_rng(seed))
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield World(server, parts, hands, crs_engine_pb2_grpc.CrsEngineServiceStub(channel))
        await hands.store.close()


def _listed(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]
