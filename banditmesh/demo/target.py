"""The mesh that a demo runs against: one that it has started, or one that exists already."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from banditmesh.client import ClientLimits, MeshClient
from banditmesh.local.stack import LocalMesh
from banditmesh.runtime.addresses import KafkaAddress, S3Address
from banditmesh.runtime.channels import open_channel
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument
from banditmesh.runtime.settings import IsClient, UsesKafka, UsesStore, load_settings
from banditmesh.runtime.store import connect
from banditmesh.runtime.tls import ClientTls

SERVICES = ("importer", "engine", "tracker")
Publish = Callable[[Path], Awaitable[str]]
"""Puts a file where the importer reads it, and returns its URI."""


@dataclass(frozen=True)
class Target:
    """Where a demo's calls go.

    Attributes:
        importer: Its gRPC target.
        engine: As ``importer``.
        tracker: As ``importer``.
        kafka: Where examples come out.
        publish: Puts a mapping file where the importer reads it.
        tls: Certificates, where the mesh has TLS.
        api_key: A key of the mesh's ``access`` table, where it has one.
    """

    importer: str
    engine: str
    tracker: str
    kafka: KafkaAddress
    publish: Publish
    tls: ClientTls | None = None
    api_key: str | None = None

    def channel(self, target: str) -> grpc.aio.Channel:
        """A channel to one of the services."""
        credentials, options = (None, ()) if self.tls is None else (self.tls.credentials(), self.tls.options)
        return open_channel(target, credentials, options)

    def client(self, limits: ClientLimits) -> MeshClient:
        """A client of engine and tracker."""
        return MeshClient(self.engine, self.tracker, limits=limits, tls=self.tls, api_key=self.api_key)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call carries that is not made by the client."""
        return () if self.api_key is None else (("authorization", f"Bearer {self.api_key}"),)


class ExistingSettings(IsClient, UsesKafka, UsesStore):
    """What a demo needs to know of a mesh besides its gRPC targets."""


def file_uri(path: Path) -> str:
    """Where a process of this machine finds a file."""
    return path.absolute().as_uri()


def local_target(mesh: LocalMesh) -> Target:
    """The mesh that runs on this machine."""

    async def publish(path: Path) -> str:
        return file_uri(path)

    addresses = mesh.addresses
    kafka = KafkaAddress.parse(mesh.settings["BANDITMESH_KAFKA"])
    return Target(addresses["importer"], addresses["crs_engine"], addresses["tracker"], kafka, publish)


def existing_target(endpoints: Mapping[str, str]) -> Target:
    """A mesh that exists; its Kafka and its store are named as its own services know them, by ``BANDITMESH_KAFKA`` and
    ``BANDITMESH_STORE``; certificates and a key of its access table by ``BANDITMESH_CLIENT_CA``, ``_CERT``, ``_KEY``
    and ``_API_KEY``.

    Raises:
        ConfigurationError: A setting is missing or wrong.
        FailedPrecondition: The store is no S3 store, which the importer of another machine could read.
    """
    settings = load_settings(ExistingSettings)
    address = settings.store
    if not isinstance(address, S3Address):
        raise FailedPrecondition(
            f"the store {address} is a folder of one machine", hint="the mapping files go there: name one on S3"
        )

    async def publish(path: Path) -> str:
        store = connect(address)
        try:
            key = f"mappings/{path.parent.name}/{path.name}"
            await store.put(key, await asyncio.to_thread(path.read_bytes))
        finally:
            await store.close()
        return f"s3://{'/'.join(filter(None, (address.bucket, address.prefix, key)))}"

    importer, engine, tracker = (endpoints[name] for name in SERVICES)
    tls = None
    if settings.client_ca is not None:
        tls = ClientTls(ca=settings.client_ca, cert=settings.client_cert, key=settings.client_key)
    key = settings.client_api_key.get_secret_value() if settings.client_api_key is not None else None
    return Target(importer, engine, tracker, settings.kafka, publish, tls, key)


def parse_endpoints(text: str) -> dict[str, str]:
    """``importer=host:port,engine=dns:///host:port,tracker=…``. Raises InvalidArgument that names what is wrong."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, target = part.strip().partition("=")
        if name not in SERVICES or not target:
            raise InvalidArgument(
                "expected importer=TARGET,engine=TARGET,tracker=TARGET", field="--endpoints", value=part
            )
        found[name] = target
    missing = [name for name in SERVICES if name not in found]
    if missing:
        raise InvalidArgument(f"no target for: {', '.join(missing)}", field="--endpoints", value=text)
    return found
