"""Builds the Importer: the only place where its clients are made."""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
from dataclasses import dataclass
from random import Random

from banditmesh.contracts.importer.v1 import importer_pb2, importer_pb2_grpc
from banditmesh.runtime import keys
from banditmesh.runtime.mesh import load_mesh
from banditmesh.runtime.metrics import RedisMetrics
from banditmesh.runtime.outages import outages
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.redis_health import RedisHealth
from banditmesh.runtime.serve import Server
from banditmesh.runtime.service_options import Importing
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import Store, connect, open_store
from banditmesh.runtime.tls import ClientTls
from services.importer.changes import Changes
from services.importer.embeddings import Embeddings
from services.importer.importing import ImportDependencies
from services.importer.jobs import Jobs
from services.importer.lease import Leases
from services.importer.live import LivePointers, LiveWatch
from services.importer.metrics import ImporterMetrics
from services.importer.provider_calls import ProviderCalls
from services.importer.redis_contents import RedisContents
from services.importer.refresh import Refresher, RefreshSchedule
from services.importer.rejects import RejectsFolder
from services.importer.requests import ImportRequests
from services.importer.servicer import ImporterServicer
from services.importer.settings import ImporterSettings
from services.importer.sources.allowed import AllowedUris
from services.importer.sources.filesystems import S3Access
from services.importer.sources.places import FileAccess
from services.importer.wake_up import WakeUp
from services.importer.worker import Worker

SERVICE = importer_pb2.DESCRIPTOR.services_by_name["ImporterService"]
REFRESH_DEADLINE_S = 600.0
"""RefreshContents of a whole service is many calls; a client that sets no deadline gets this one."""


@dataclass(frozen=True)
class Parts:
    """What was built, for a test that wants to look inside."""

    owner: str
    requests: ImportRequests
    refresher: Refresher
    metrics: ImporterMetrics


async def bootstrap(settings: ImporterSettings, server: Server) -> None:
    """Register the Importer with a server. Raises ConfigurationError."""
    build(settings, server)


def build(settings: ImporterSettings, server: Server) -> Parts:
    """See :func:`bootstrap`."""
    mesh = load_mesh(settings.config, server.mesh_text)
    server.guard(mesh.access)
    importing, clock = mesh.importing, server.clock
    # The host tells operators where to look; the rest makes a restarted process another owner.
    owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    metrics = ImporterMetrics(server.registry)
    redis = RedisClient(
        settings.redis, timeout_s=settings.import_redis_timeout_s, metrics=RedisMetrics(server.registry)
    )
    store = connect(settings.store)
    rejects_store, prefix = _rejects(importing, store)
    addresses = {name: service.provider for name, service in mesh.services.items() if service.provider}
    providers = ProviderCalls(
        addresses,
        metrics,
        clock,
        Random(),
        timeout_s=importing.provider_timeout,
        tls=_provider_tls(settings),
        dimensions=mesh.vectors.dimensions if mesh.vectors else None,
    )
    changes = Changes(redis)
    embeddings = Embeddings(mesh.vectors, Snapshots(store, None), clock, metrics) if mesh.vectors else None
    contents = RedisContents(redis, changes, clock, ttl_s=importing.content_ttl, embeddings=embeddings)
    jobs, wake_up = Jobs(redis), WakeUp(clock)
    files = FileAccess(
        S3Access.of(settings.store), AllowedUris(importing.allowed_uris, local_files=settings.import_local_files)
    )
    live = LivePointers(redis, ttl_s=importing.mapping_ttl)
    sources = [f"{name}/{logic}" for name, service in mesh.services.items() for logic in service.logics]
    watch = LiveWatch(live, [*sources, keys.PROFILES], metrics, clock)
    refresher = Refresher(contents, providers, metrics, mesh.services)
    schedule = RefreshSchedule(redis, refresher, mesh.services, metrics, clock, owner=owner, lease_s=importing.lease)
    deps = ImportDependencies(
        redis=redis,
        jobs=jobs,
        live=live,
        contents=contents,
        changes=changes,
        providers=providers,
        rejects=RejectsFolder(redis, rejects_store, prefix),
        files=files,
        settings=importing,
        services=mesh.services,
        profile_types=mesh.profiles,
        metrics=metrics,
        clock=clock,
        wake_up=wake_up,
    )
    leases = Leases(redis, clock, owner=owner, ttl_s=importing.lease)
    worker = Worker(leases, deps, jobs_at_once=settings.import_jobs, handover_s=settings.import_handover_s)
    requests = ImportRequests(mesh.services, jobs, live, files.allowed, wake_up, clock)

    deadlines_s = {**server.options.deadlines_s, f"/{SERVICE.full_name}/RefreshContents": REFRESH_DEADLINE_S}
    server.options = dataclasses.replace(server.options, deadlines_s=deadlines_s)
    server.add_service(
        SERVICE,
        importer_pb2_grpc.add_ImporterServiceServicer_to_server,
        ImporterServicer(requests, refresher, clock),
        until_drain=("WatchImportJob",),
    )
    redis_health = RedisHealth(redis, relies=True)
    waits = "not ready; imports and refreshes wait, and go on from their last checkpoint"
    server.check("redis", redis_health.writable, meanwhile=waits, where=str(redis.address))
    server.check("redis settings", redis_health.keeps, interval_s=10.0, silence_of="redis", where=str(redis.address))
    server.check(
        "store",
        store.ping,
        critical=False,
        meanwhile="imports go on; rejects files are not written to it",
        where=store.location,
    )
    for name in mesh.services:
        outages.meanwhile(f"provider of {name}", "what is known of its contents stays; new ones wait")
    server.background("import jobs", worker.run)
    server.background("refresh schedule", schedule.run)
    server.background("live versions", watch.run)
    server.on_stop("redis", redis.close)
    server.on_stop("store", store.close)
    if rejects_store is not store:
        server.on_stop("rejects store", rejects_store.close)
    server.on_stop("data providers", providers.close)
    return Parts(owner, requests, refresher, metrics)


def _rejects(importing: Importing, store: Store) -> tuple[Store, str]:
    """Where rejects files go: a place of their own, or a folder of the store."""
    return (store, "rejects/") if importing.rejects_uri is None else (open_store(importing.rejects_uri), "")


def _provider_tls(settings: ImporterSettings) -> ClientTls | None:
    """How Data Providers are called; None: in plaintext."""
    if settings.provider_ca is None:
        return None
    return ClientTls(settings.provider_ca, settings.tls_cert, settings.tls_key)
