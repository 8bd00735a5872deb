"""What a service team writes a Data Provider with: the importer asks it what the team's contents are.

A whole provider::

    from banditmesh.provider import Content, DataProvider

    FORECASTS = {"tokyo": "Sunny, 24 degrees", "osaka": "Rain from noon"}

    class WeatherProvider(DataProvider):
        async def get_contents(self, service, content_ids):
            return [
                Content(city, title=FORECASTS[city], uri=f"weather://{city}", attributes={"category": "weather"})
                for city in content_ids
                if city in FORECASTS
            ]

    if __name__ == "__main__":
        WeatherProvider().run("0.0.0.0:50061")

Name its address in ``mesh.yaml`` (``services.weather.provider: dns:///weather:50061``). Health and reflection are
served too.
"""

from __future__ import annotations

import asyncio
import math
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import grpc

from banditmesh.contracts.provider.v1 import provider_pb2, provider_pb2_grpc
from banditmesh.lengths import MAX_CONTENT_IDS
from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.errors import Internal, InvalidArgument
from banditmesh.runtime.logging import configure_logging
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.tls import ServerTls

SERVICE = provider_pb2.DESCRIPTOR.services_by_name["DataProviderService"]

AttributeValue = str | float | Sequence[str]


@dataclass(frozen=True)
class Content:
    """One thing that can be shown in a slot.

    Attributes:
        content_id: Unique within the service; 1 to 256 bytes of UTF-8.
        title: What an app shows as the headline; no control characters.
        uri: Where a click leads; any scheme but ``javascript:``, ``vbscript:`` and ``data:``.
        attributes: What the model knows of it, by the names that ``features.content`` of ``mesh.yaml`` refers to: a
            text, several texts (such as genres), or a finite number.
        expires_at: After this time (with a time zone) it is never shown; None: it does not expire by itself.
        hidden: Exists, but must not be shown now.
        image_uri: The picture of a banner.
        embedding: Where it lies among the contents, for models that retrieve by likeness: as many finite numbers as
            ``vectors.dimensions`` of ``mesh.yaml``; empty: it has none, or the importer makes one of its words.
        body: The text, for ``vectors.embedding: text``; it is not stored.
    """

    content_id: str
    title: str = ""
    uri: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    expires_at: datetime | None = None
    hidden: bool = False
    image_uri: str = ""
    embedding: Sequence[float] = ()
    body: str = ""

    def to_message(self) -> provider_pb2.Content:
        """Return the content as it travels.

        Raises:
            ValueError: A number is not finite, or ``expires_at`` has no time zone.
        """
        message = provider_pb2.Content(
            content_id=self.content_id,
            title=self.title,
            uri=self.uri,
            attributes=[_attribute(name, value) for name, value in self.attributes.items()],
            hidden=self.hidden,
            image_uri=self.image_uri,
            embedding=self.embedding,
            body=self.body,
        )
        if self.expires_at is not None:
            if self.expires_at.tzinfo is None:
                raise ValueError(f"expires_at of the content {self.content_id!r} has no time zone")
            message.expires_at.FromDatetime(self.expires_at)
        return message


class DataProvider(ABC):
    """Base of a Data Provider: implement :meth:`get_contents`, call :meth:`run`."""

    @abstractmethod
    async def get_contents(self, service: str, content_ids: Sequence[str]) -> Iterable[Content]:
        """Return those of the contents that exist; what is left out is dropped from the mesh.

        Must not block: await, or leave blocking work to ``asyncio.to_thread``. Whatever it raises makes the import or
            refresh fail, and
        everything stays as it was.

        Args:
            service: One provider may serve several services.
            content_ids: At most 500, each once.
        """

    def server(self, options: ServerOptions | None = None) -> Server:
        """Return a server of this provider: ``async with provider.server():``."""
        server = Server(options or ServerOptions())
        server.add_service(SERVICE, provider_pb2_grpc.add_DataProviderServiceServicer_to_server, _Servicer(self))
        return server

    def run(self, address: str, *, tls: ServerTls | None = None) -> int:
        """Serve on ``host:port`` until SIGTERM or Ctrl-C, with logs on stderr; returns the exit code.

        ``tls``: files of certificates, which may be replaced while it serves; None: plaintext.

        Raises:
            ValueError: The address is not ``host:port``.
            ConfigurationError: It cannot be bound, or a certificate cannot be used.
        """
        configure_logging("data-provider")
        return asyncio.run(self._serve(HostPort.parse(address), tls))

    async def _serve(self, address: HostPort, tls: ServerTls | None) -> int:
        server = self.server(ServerOptions(address=address, tls=tls))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.request_stop)
        async with server:
            return await server.run_until_stopped()


class _Servicer(provider_pb2_grpc.DataProviderServiceServicer):
    def __init__(self, provider: DataProvider) -> None:
        self._provider = provider

    async def GetContents(
        self, request: provider_pb2.GetContentsRequest, context: grpc.aio.ServicerContext
    ) -> provider_pb2.GetContentsResponse:
        if len(request.content_ids) > MAX_CONTENT_IDS:
            raise InvalidArgument(
                f"at most {MAX_CONTENT_IDS} content ids in a call", field="content_ids", value=len(request.content_ids)
            )
        contents = await self._provider.get_contents(request.service, list(request.content_ids))
        try:
            return provider_pb2.GetContentsResponse(contents=[content.to_message() for content in contents])
        except ValueError as error:
            raise Internal(f"the provider returned a content that cannot be sent: {error}") from error


def _attribute(name: str, value: AttributeValue) -> provider_pb2.Attribute:
    if isinstance(value, str):
        return provider_pb2.Attribute(name=name, values=[value])
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f"the attribute {name!r} is {value}, not a finite number")
        return provider_pb2.Attribute(name=name, number=value)
    return provider_pb2.Attribute(name=name, values=value)
