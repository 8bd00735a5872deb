"""Data Providers that answer too much, too little, or not at all, and what must not follow from it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.provider import Content, DataProvider
from tests.support.eventually import eventually
from tests.support.importing import Importer, Reader, ScriptedProvider, mesh_yaml, running_importer, running_provider
from tests.support.mapping_files import mapping, weather_keys, write


class Wordy(DataProvider):
    """Its contents are so large that only a few fit into a message; ``huge`` does not fit at all."""

    async def get_contents(self, service: str, content_ids: Sequence[str]) -> list[Content]:
        return [
            Content(each, title="x" * 5_000_000) if each == "huge" else Content(each, body="y" * 60_000)
            for each in content_ids
        ]


def nothing(request: Any, context: object) -> Any:
    async def answer() -> provider_pb2.GetContentsResponse:
        return provider_pb2.GetContentsResponse()

    return answer()


async def refresh(importer: Importer, *content_ids: str, drop_missing: bool = False) -> pb.RefreshContentsResponse:
    request = pb.RefreshContentsRequest(service="weather", content_ids=content_ids, drop_missing=drop_missing)
    return await importer.stub.RefreshContents(request)


async def test_an_answer_over_4_mib_is_asked_for_in_halves_and_what_is_too_large_alone_is_named(
    fresh_redis: str, reader: Reader, tmp_path: Path
) -> None:
    wanted = [f"c{i}" for i in range(100)]
    async with Wordy().server() as server:
        mesh = mesh_yaml(provider=f"127.0.0.1:{server.port}")
        async with running_importer(tmp_path, fresh_redis, mesh) as importer:
            rows = [{"user_id": "u", "contents": [*wanted[:50], "huge"]}, {"user_id": "v", "contents": wanted[50:]}]
            job = await importer.import_mapping(write(tmp_path / "m.jsonl", rows))
            done = await refresh(importer, "c0", "huge")
            rejected = importer.metric("rejected_contents_total", service="weather", reason="too_large")

    assert (job.state, job.progress.new_contents) == (pb.IMPORT_STATE_SUCCEEDED, 100), job.error
    assert await reader.content("c99") is not None
    assert [(each.content_id, each.reason) for each in done.rejections] == [("huge", "too_large")]
    assert (done.rejected, rejected) == (1, 2)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: trying to send message larger than max (5000000 vs. 4194304)"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size 4194304: 5000000"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Sending message exceeds the maximum configured message size."),
        (grpc.StatusCode.OUT_OF_RANGE, "Error, encoded message length too large: found 5000000 bytes"),
    ],
)
async def test_providers_in_every_language_are_asked_in_halves(
    importer: Importer, provider: ScriptedProvider, code: grpc.StatusCode, details: str
) -> None:
    async def one_at_a_time(request: Any, context: grpc.aio.ServicerContext) -> Any:
        if len(request.content_ids) > 1:
            await context.abort(code, details)
        return await provider.all_exist(request, context)

    provider.answer = one_at_a_time

    assert (await refresh(importer, "sun", "rain", "wind")).changed == 3


async def test_a_provider_that_answers_an_empty_list_once_takes_nothing_away(
    importer: Importer, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun", "rain", "wind")))
    provider.answer = nothing

    done = await refresh(importer)

    assert (done.requested, done.missing, done.kept) == (3, 0, 3)
    assert importer.metric("contents_total", service="weather", outcome="kept") == 3
    assert await reader.content("sun") is not None
    provider.answer = provider.all_exist
    assert (await refresh(importer)).requested == 3


async def test_one_empty_answer_among_good_ones_takes_nothing_away_either(
    importer: Importer, provider: ScriptedProvider
) -> None:
    wanted = [f"c{i}" for i in range(1200)]
    for start in range(0, len(wanted), 400):
        await refresh(importer, *wanted[start : start + 400])
    answers = iter([nothing])

    async def empty_once(request: Any, context: grpc.aio.ServicerContext) -> Any:
        return await next(answers, provider.all_exist)(request, context)

    provider.answer = empty_once
    done = await refresh(importer)

    assert (done.requested, done.missing) == (1200, 0)
    assert done.kept >= 20
    assert (await refresh(importer)).requested == 1200


async def test_what_a_strange_provider_says_is_one_short_line(importer: Importer, provider: ScriptedProvider) -> None:
    async def refuses(_request: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.abort(grpc.StatusCode.INTERNAL, "boom\nat \x1b[31mline 2" + "z" * 4000)

    provider.answer = refuses
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await refresh(importer, "sun")

    details = refused.value.details() or ""
    assert "answered INTERNAL: boom\\nat \\x1b[31mline 2zzz" in details
    assert details.isprintable()
    assert "see its own log" in details


async def test_a_refresh_that_is_told_to_drops_all_that_is_missing(
    importer: Importer, reader: Reader, provider: ScriptedProvider
) -> None:
    await refresh(importer, "sun", "rain")
    provider.answer = nothing

    named = await refresh(importer, "sun")
    done = await refresh(importer, drop_missing=True)

    assert (named.missing, named.kept) == (1, 0)
    assert (done.missing, done.kept) == (1, 0)
    assert await reader.content("rain") is None


async def test_a_scheduled_refresh_that_is_held_back_is_counted(
    fresh_redis: str, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    mesh = mesh_yaml(provider=provider.address, refresh_every="1h")
    async with running_importer(tmp_path, fresh_redis, mesh_yaml(provider=provider.address)) as importer:
        await refresh(importer, "sun", "rain")
    provider.answer = nothing
    async with running_importer(tmp_path, fresh_redis, mesh) as importer:

        async def held_back() -> bool:
            return importer.metric("refreshes_total", service="weather", outcome="held_back") == 1

        await eventually(held_back)

    assert await reader.content("sun") is not None


async def test_a_provider_that_hangs_holds_neither_the_refreshes_nor_the_imports_of_others(
    fresh_redis: str, provider: ScriptedProvider, reader: Reader, tmp_path: Path
) -> None:
    asked = asyncio.Event()

    async def never(request: Any, context: object) -> Any:
        asked.set()
        await asyncio.Event().wait()

    async with running_provider() as hanging:
        hanging.answer = never
        names = "[a, b, c, d, e, f, g, h, i, j]"
        mesh = (
            f"services:\n  stuck: {{logics: {names}, provider: '{hanging.address}', refresh_every: 1s}}\n"
            f"  weather: {{logics: [today], provider: '{provider.address}', refresh_every: 100ms}}\n"
            "placements: {home: {sources: [weather/today]}}\nimporting: {provider_timeout: 60s}\n"
        )
        uri = write(tmp_path / "m.csv", mapping(1, "sun"))
        async with running_importer(tmp_path, fresh_redis, mesh) as importer:
            await reader.redis.sadd("known:stuck", "x")
            for logic in "abcdefghij":
                await importer.notify(uri, logic=logic, service="stuck")
            await asked.wait()

            job = await importer.import_mapping(uri)

            async def refreshed_twice() -> bool:
                return importer.metric("refreshes_total", service="weather", outcome="succeeded") >= 2

            await eventually(refreshed_twice)

    assert job.state == pb.IMPORT_STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"title": "Sun\nand rain"}, "title_has_control_character"),
        ({"title": "Sun\x1b[31m"}, "title_has_control_character"),
        ({"uri": "javascript:alert(1)"}, "uri_is_javascript"),
        ({"uri": " JavaScript:alert(1)"}, "uri_is_javascript"),
        ({"uri": "java\tscript:alert(1)"}, "uri_has_control_character"),
        ({"uri": "data:text/html,<script>"}, "uri_is_data"),
        ({"image_uri": "vbscript:x"}, "image_uri_is_vbscript"),
        ({"image_uri": "data:text/html,x"}, "image_uri_is_data"),
        ({"image_uri": "https://i/" + "x" * 2048}, "image_uri_too_long"),
    ],
)
async def test_what_an_app_must_not_show_is_refused_with_its_reason(
    importer: Importer, provider: ScriptedProvider, content: dict[str, str], reason: str
) -> None:
    async def answer(request: Any, context: object) -> provider_pb2.GetContentsResponse:
        return provider_pb2.GetContentsResponse(contents=[provider_pb2.Content(content_id="sun", **content)])

    provider.answer = answer

    done = await refresh(importer, "sun")

    assert [(each.content_id, each.reason) for each in done.rejections] == [("sun", reason)]


async def test_links_into_apps_pictures_and_urls_as_ids_are_kept(
    importer: Importer, reader: Reader, provider: ScriptedProvider
) -> None:
    url = "https://comics.example.com/volumes/" + "x" * 215
    given = provider_pb2.Content(
        content_id=url, uri="weather://tokyo", image_uri="data:image/png;base64,AAAA", title="Sün ☀"
    )

    async def answer(request: Any, context: object) -> provider_pb2.GetContentsResponse:
        return provider_pb2.GetContentsResponse(contents=[given])

    provider.answer = answer

    assert (await refresh(importer, url)).changed == 1
    assert await reader.content(url) == given


async def test_a_mapping_that_lost_most_of_its_rows_fails_where_that_is_asked_for(
    fresh_redis: str, reader: Reader, tmp_path: Path
) -> None:
    mesh = mesh_yaml(importing="profiles_max_missing: 0.2").replace("tomorrow]", "tomorrow], mapping_max_missing: 0.5")
    async with running_importer(tmp_path, fresh_redis, mesh) as importer:
        await importer.import_mapping(write(tmp_path / "1.csv", mapping(100, "old")), "v1")
        cut = await importer.import_mapping(write(tmp_path / "2.csv", mapping(49, "new")), "v2")
        fewer = await importer.import_mapping(write(tmp_path / "3.csv", mapping(50, "fewer")), "v3")
        people = [{"user_id": f"u{i}", "gender": "f"} for i in range(10)]
        await importer.import_profiles(write(tmp_path / "p1.csv", people), "v1")
        profiles = await importer.import_profiles(write(tmp_path / "p2.csv", people[:7]), "v2")

    assert (cut.state, cut.error.reason) == (pb.IMPORT_STATE_FAILED, "too_few_rows")
    assert "49 valid rows where the live version 'v1' has 100" in cut.error.message
    assert (fewer.state, profiles.error.reason) == (pb.IMPORT_STATE_SUCCEEDED, "too_few_rows")
    assert await reader.candidates("u0") == weather_keys("fewer")
