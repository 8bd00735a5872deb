"""The Data Provider base class, by the very example of its documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from banditmesh import provider as module
from banditmesh.contracts.provider.v1 import provider_pb2, provider_pb2_grpc
from banditmesh.provider import Content, DataProvider

EXAMPLE = textwrap.dedent((module.__doc__ or "").split("::\n", 1)[1].split("\nName its address", 1)[0]).strip()


def example() -> DataProvider:
    names: dict[str, Any] = {"__name__": "weather"}
    exec(compile(EXAMPLE, "example", "exec"), names)
    provider = names["WeatherProvider"]()
    assert isinstance(provider, DataProvider)
    return provider


async def ask(provider: DataProvider, *content_ids: str) -> Sequence[provider_pb2.Content]:
    async with provider.server() as server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = provider_pb2_grpc.DataProviderServiceStub(channel)
        request = provider_pb2.GetContentsRequest(service="weather", content_ids=content_ids)
        return list((await stub.GetContents(request)).contents)


def test_the_documented_provider_is_shorter_than_20_lines() -> None:
    assert len(EXAMPLE.splitlines()) < 20


async def test_the_documented_provider_answers() -> None:
    assert await ask(example(), "tokyo", "atlantis") == [
        provider_pb2.Content(
            content_id="tokyo",
            title="Sunny, 24 degrees",
            uri="weather://tokyo",
            attributes=[provider_pb2.Attribute(name="category", values=["weather"])],
        )
    ]


async def test_a_provider_reports_its_health() -> None:
    async with example().server() as server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        request = health_pb2.HealthCheckRequest(service="banditmesh.provider.v1.DataProviderService")
        response = await health_pb2_grpc.HealthStub(channel).Check(request)

    assert response.status == health_pb2.HealthCheckResponse.SERVING


async def test_more_than_500_ids_are_refused() -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ask(example(), *(str(i) for i in range(501)))

    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


class Returning(DataProvider):
    def __init__(self, *contents: Content) -> None:
        self.contents = contents

    async def get_contents(self, service: str, content_ids: Sequence[str]) -> Sequence[Content]:
        return self.contents


async def test_every_kind_of_attribute_travels() -> None:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    film = Content("f", attributes={"genres": ["drama", "war"], "year": 1979}, expires_at=at, hidden=True)

    (content,) = await ask(Returning(film), "f")

    genres, year = content.attributes
    assert (list(genres.values), genres.HasField("number"), year.number) == (["drama", "war"], False, 1979.0)
    assert content.expires_at.ToDatetime(UTC) == at
    assert content.hidden


@pytest.mark.parametrize(
    "content", [Content("f", attributes={"size": float("nan")}), Content("f", expires_at=datetime(2026, 1, 1))]
)
async def test_a_content_that_cannot_travel_is_an_error_and_no_silent_gap(content: Content) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ask(Returning(content), "f")

    assert error.value.code() == grpc.StatusCode.INTERNAL
