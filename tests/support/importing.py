"""What the importer's tests share: an importer in this process, a Data Provider, and a reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.contracts.importer.v1 import importer_pb2_grpc
from banditmesh.contracts.provider.v1 import provider_pb2, provider_pb2_grpc
from banditmesh.runtime import keys, packing
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.settings import load_settings
from services.importer.bootstrap import build
from services.importer.settings import ImporterSettings

ENDED = (pb.IMPORT_STATE_SUCCEEDED, pb.IMPORT_STATE_FAILED, pb.IMPORT_STATE_CANCELLED)


def mesh_yaml(*, provider: str | None = None, refresh_every: str | None = None, importing: str = "") -> str:
    """Return a ``mesh.yaml`` with the services ``weather`` (logics today, tomorrow) and ``comics`` (similar)."""
    weather = "logics: [today, tomorrow]"
    weather += f", provider: '{provider}'" if provider else ""
    weather += f", refresh_every: {refresh_every}" if refresh_every else ""
    return (
        f"services: {{weather: {{{weather}}}, comics: {{logics: [similar]}}}}\n"
        "placements: {home: {sources: [weather/today]}}\n"
        f"importing: {{{importing}}}\n"
    )


class Importer:
    """A running importer and a client of it."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.stub = importer_pb2_grpc.ImporterServiceStub(channel)

    async def notify(
        self, uri: str, version: str = "v1", logic: str = "today", service: str = "weather"
    ) -> pb.ImportJob:
        request = pb.NotifyMappingRequest(service=service, logic=logic, uri=uri, version=version)
        return (await self.stub.NotifyMapping(request)).job

    async def import_mapping(self, uri: str, version: str = "v1", logic: str = "today") -> pb.ImportJob:
        return await self.ended(await self.notify(uri, version, logic))

    async def import_profiles(self, uri: str, version: str = "v1") -> pb.ImportJob:
        return await self.ended(
            (await self.stub.NotifyProfiles(pb.NotifyProfilesRequest(uri=uri, version=version))).job
        )

    async def ended(self, job: pb.ImportJob) -> pb.ImportJob:
        """Watch a job to its end."""
        async for change in self.stub.WatchImportJob(pb.WatchImportJobRequest(job_id=job.job_id)):
            job = change.job
        return job

    def metric(self, name: str, **labels: str) -> float:
        return self.server.registry.get_sample_value(f"banditmesh_importer_{name}", labels) or 0.0


@asynccontextmanager
async def running_importer(folder: Path, redis: str, mesh: str, **settings: Any) -> AsyncIterator[Importer]:
    """An importer in this process, on a port of its own."""
    config = folder / "mesh.yaml"
    config.write_text(mesh)
    values = {
        "config": config,
        "redis": redis,
        "store": (folder / "store").as_uri(),
        "grpc_address": "127.0.0.1:0",
        "import_handover_s": 0,
        "import_local_files": True,
        **settings,
    }
    server = Server(ServerOptions(grace_s=0), registry=CollectorRegistry())
    build(load_settings(ImporterSettings, values), server)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Importer(server, channel)


Answer = Callable[
    [provider_pb2.GetContentsRequest, grpc.aio.ServicerContext], Awaitable[provider_pb2.GetContentsResponse]
]


class ScriptedProvider(provider_pb2_grpc.DataProviderServiceServicer):
    """A Data Provider that does what the test says; by default every content exists."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.answer: Answer = self.all_exist
        self.address = ""

    async def GetContents(self, request: provider_pb2.GetContentsRequest, context: grpc.aio.ServicerContext) -> Any:
        self.asked.append(list(request.content_ids))
        return await self.answer(request, context)

    async def all_exist(
        self, request: provider_pb2.GetContentsRequest, context: object
    ) -> provider_pb2.GetContentsResponse:
        contents = [provider_pb2.Content(content_id=each, title=f"Title of {each}") for each in request.content_ids]
        return provider_pb2.GetContentsResponse(contents=contents)


class StuckProvider:
    """Makes a provider answer until a content is asked for, then not any more until released."""

    def __init__(self, provider: ScriptedProvider, content_id: str) -> None:
        self.reached = asyncio.Event()
        self.released = asyncio.Event()
        self._content_id = content_id
        self._all_exist = provider.all_exist
        provider.answer = self.answer

    async def answer(
        self, request: provider_pb2.GetContentsRequest, context: object
    ) -> provider_pb2.GetContentsResponse:
        if self._content_id in request.content_ids:
            self.reached.set()
            await self.released.wait()
        return await self._all_exist(request, context)


@asynccontextmanager
async def running_provider() -> AsyncIterator[ScriptedProvider]:
    """A provider on a port of its own."""
    provider = ScriptedProvider()
    server = grpc.aio.server()
    provider_pb2_grpc.add_DataProviderServiceServicer_to_server(provider, server)
    provider.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield provider
    finally:
        await server.stop(0)


class Reader:
    """Reads as an engine does: the live pointer, then the slot that it names, ignoring values of other versions."""

    def __init__(self, url: str) -> None:
        cluster = "+cluster" in url
        plain = url.replace("+cluster", "")
        self.redis: Any = RedisCluster.from_url(plain) if cluster else Redis.from_url(plain)

    async def live(self, source: str = "weather/today") -> packing.LiveVersion | None:
        value = await self.redis.get(keys.live(source))
        return None if value is None else packing.LiveVersion.unpack(value)

    async def candidates(self, user: str, source: str = "weather/today") -> list[int] | None:
        """Content keys, None when the user has none in the live version."""
        live = await self.live(source)
        value = live and await self.redis.get(keys.candidates(keys.user_tag(user), source, live.slot))
        if not live or value is None:
            return None
        version, contents, _ = packing.unpack_candidates(value)
        return contents.tolist() if version == live.version else None

    async def profile(self, user: str) -> packing.Profile | None:
        live = await self.live(keys.PROFILES)
        value = live and await self.redis.get(keys.profile(keys.user_tag(user), live.slot))
        if not live or value is None:
            return None
        version, profile = packing.unpack_profile(value)
        return profile if version == live.version else None

    async def content(self, content_id: str, service: str = "weather") -> provider_pb2.Content | None:
        value = await self.redis.get(keys.content(content_key(service, content_id)))
        return None if value is None else provider_pb2.Content.FromString(packing.unpack_content(value)[1])

    async def changes(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in await self.redis.xrange(keys.CHANGES)]

    async def close(self) -> None:
        await self.redis.aclose()


async def notified(
    importer: Importer, uri: str, *, profiles: bool = False, version: str = "v1", **options: Any
) -> pb.ImportJob:
    if profiles:
        asked = pb.NotifyProfilesRequest(uri=uri, version=version, **options)
        return await importer.ended((await importer.stub.NotifyProfiles(asked)).job)
    request = pb.NotifyMappingRequest(service="weather", logic="today", uri=uri, version=version, **options)
    return await importer.ended((await importer.stub.NotifyMapping(request)).job)


def warnings(job: pb.ImportJob) -> dict[str, int]:
    return {each.reason: each.count for each in job.warnings}
