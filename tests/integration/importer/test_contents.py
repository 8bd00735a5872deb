"""Contents: from providers that answer, are away, are slow, or answer what nobody asked for; refreshes on demand and
on schedule.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.runtime import keys
from tests.support.importing import Importer, Reader, ScriptedProvider, mesh_yaml, running_importer
from tests.support.mapping_files import mapping, weather_keys, write

Content = provider_pb2.Content
QUICK = "provider_timeout: 50ms"


def answering(*contents: Content) -> Any:
    async def answer(request: Any, context: object) -> provider_pb2.GetContentsResponse:
        return provider_pb2.GetContentsResponse(contents=contents)

    return answer


async def refresh(importer: Importer, *content_ids: str) -> tuple[int, int, int, int]:
    request = pb.RefreshContentsRequest(service="weather", content_ids=content_ids)
    done = await importer.stub.RefreshContents(request)
    return done.requested, done.changed, done.missing, done.rejected


async def test_the_provider_is_asked_once_for_each_content_and_for_at_most_500_at_once(
    importer: Importer, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    rows = [{"user_id": f"u{i}", "contents": [f"c{i * 5 + j}" for j in range(5)]} for i in range(240)]

    job = await importer.import_mapping(write(tmp_path / "m.parquet", rows + rows))

    assert job.progress.new_contents == 1200
    assert sorted(content_id for batch in provider.asked for content_id in batch) == sorted(
        f"c{i}" for i in range(1200)
    )
    assert max(map(len, provider.asked)) <= 500
    content = await reader.content("c1199")
    assert content is not None
    assert content.title == "Title of c1199"


async def test_known_contents_are_not_asked_for_again_and_live_on(
    importer: Importer, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    await importer.import_mapping(write(tmp_path / "1.csv", mapping(1, "sun")), "v1")
    name = keys.content(content_key("weather", "sun"))
    await reader.redis.pexpire(name, 5000)

    job = await importer.import_mapping(write(tmp_path / "2.csv", mapping(1, "sun")), "v2")

    assert (job.progress.new_contents, provider.asked) == (0, [["sun"]])
    assert await reader.redis.pttl(name) > 10_000


async def test_contents_that_the_provider_does_not_have_are_counted_and_stay_candidates(
    importer: Importer, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    provider.answer = answering(Content(content_id="sun"))

    job = await importer.import_mapping(write(tmp_path / "m.csv", mapping(30, "sun", "ghost")))

    assert (job.state, job.progress.new_contents, job.progress.missing_contents) == (pb.IMPORT_STATE_SUCCEEDED, 1, 1)
    assert await reader.candidates("u0") == weather_keys("sun", "ghost")
    assert await reader.content("ghost") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (Content(content_id="foreign"), "not_asked_for"),
        (Content(), "no_id"),
        (Content(content_id="sun", attributes=[{"name": "size", "number": float("nan")}]), "number_not_finite"),
        (Content(content_id="sun", attributes=[{"name": "size", "number": float("inf")}]), "number_not_finite"),
        (Content(content_id="sun", title="x" * 1025), "title_too_long"),
        (Content(content_id="sun", attributes=[{"name": ""}]), "bad_attribute_name"),
        (Content(content_id="sun", attributes=[{"name": "a"}, {"name": "a"}]), "attribute_twice"),
        (
            Content(content_id="sun", attributes=[{"name": f"a{n}", "values": ["v" * 256]} for n in range(64)]),
            "too_large",
        ),
    ],
)
async def test_an_answer_that_is_not_valid_is_ignored_and_counted(
    importer: Importer, reader: Reader, provider: ScriptedProvider, tmp_path: Path, content: Content, reason: str
) -> None:
    provider.answer = answering(content, Content(content_id="rain"))

    job = await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun", "rain")))

    assert (job.state, job.progress.new_contents) == (pb.IMPORT_STATE_SUCCEEDED, 1)
    assert await reader.content("rain") is not None
    assert await reader.content("sun") is None
    assert await reader.content("foreign") is None
    assert importer.metric("rejected_contents_total", service="weather", reason=reason) == 1


async def test_a_provider_that_is_away_fails_the_job_and_the_old_version_stays(
    fresh_redis: str, reader: Reader, tmp_path: Path
) -> None:
    mesh = mesh_yaml(provider="127.0.0.1:1", importing=QUICK)
    async with running_importer(tmp_path, fresh_redis, mesh) as importer:
        job = await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun")))

    assert (job.state, job.error.reason) == (pb.IMPORT_STATE_FAILED, "provider_unavailable")
    assert "127.0.0.1:1" in job.error.message
    assert await reader.live() is None


async def test_a_provider_that_is_too_slow_fails_the_job(
    fresh_redis: str, provider: ScriptedProvider, tmp_path: Path
) -> None:
    async def never(request: Any, context: object) -> Any:
        await asyncio.Event().wait()

    provider.answer = never
    mesh = mesh_yaml(provider=provider.address, importing=QUICK)
    async with running_importer(tmp_path, fresh_redis, mesh) as importer:
        job = await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun")))
        calls = importer.metric("provider_calls_total", service="weather", code="DEADLINE_EXCEEDED")

    assert job.error.reason == "provider_unavailable"
    assert "DEADLINE_EXCEEDED" in job.error.message
    assert calls == 5


async def test_a_provider_that_is_away_for_a_moment_is_asked_again(
    importer: Importer, provider: ScriptedProvider, tmp_path: Path
) -> None:
    async def once_away(request: Any, context: grpc.aio.ServicerContext) -> Any:
        provider.answer = provider.all_exist
        await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")

    provider.answer = once_away

    job = await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun")))

    assert (job.state, len(provider.asked)) == (pb.IMPORT_STATE_SUCCEEDED, 2)


async def test_a_provider_that_answers_with_an_error_fails_the_job_at_once(
    importer: Importer, provider: ScriptedProvider, tmp_path: Path
) -> None:
    async def broken(request: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.abort(grpc.StatusCode.INTERNAL, "division by zero")

    provider.answer = broken

    job = await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun")))

    assert (job.error.reason, len(provider.asked)) == ("provider_failed", 1)
    assert "division by zero" in job.error.message


async def test_a_content_lives_no_longer_than_it_says(
    importer: Importer, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    soon, past = Content(content_id="sun"), Content(content_id="rain")
    soon.expires_at.FromSeconds(4_000_000_000)
    past.expires_at.FromSeconds(1)
    provider.answer = answering(soon, past)

    job = await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun", "rain")))

    assert (job.progress.new_contents, job.progress.missing_contents) == (1, 1)
    assert await reader.content("sun") is not None
    assert await reader.content("rain") is None


async def test_a_refresh_brings_in_what_changed_drops_what_is_gone_and_announces_both(
    importer: Importer, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "same", "new", "gone")))
    before = len(await reader.changes())
    provider.answer = answering(
        Content(content_id="same", title="Title of same"),
        Content(content_id="new", title="Changed"),
        Content(content_id="x"),
    )

    assert await refresh(importer) == (3, 1, 1, 1)

    content = await reader.content("new")
    assert content is not None
    assert content.title == "Changed"
    assert await reader.content("gone") is None
    announced = [np.frombuffer(change[b"keys"], "<u8").tolist() for change in (await reader.changes())[before:]]
    assert announced == [weather_keys("new"), weather_keys("gone")]
    assert await refresh(importer) == (2, 0, 0, 1)


async def test_a_refresh_of_some_contents_asks_for_these_alone(
    importer: Importer, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    assert await refresh(importer, "sun", "rain", "sun") == (2, 2, 0, 0)

    assert provider.asked == [["sun", "rain"]]
    assert await reader.content("rain") is not None


async def test_a_content_whose_refresh_is_not_valid_stays_as_it_was(
    importer: Importer, reader: Reader, provider: ScriptedProvider
) -> None:
    await refresh(importer, "sun")
    provider.answer = answering(Content(content_id="sun", title="x" * 2000))

    assert await refresh(importer) == (1, 0, 0, 1)

    content = await reader.content("sun")
    assert content is not None
    assert content.title == "Title of sun"


async def test_a_refresh_without_its_provider_is_unavailable_and_names_it(fresh_redis: str, tmp_path: Path) -> None:
    mesh = mesh_yaml(provider="127.0.0.1:1", importing=QUICK)
    async with running_importer(tmp_path, fresh_redis, mesh) as importer:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await refresh(importer, "sun")

    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "127.0.0.1:1" in (error.value.details() or "")


async def test_of_several_importers_one_refreshes_on_schedule(
    fresh_redis: str, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    asked = asyncio.Event()

    async def count(request: Any, context: object) -> Any:
        asked.set()
        return await provider.all_exist(request, context)

    async with running_importer(tmp_path, fresh_redis, mesh_yaml(provider=provider.address)) as importer:
        await refresh(importer, "sun")
    provider.answer = count
    provider.asked.clear()
    scheduled = mesh_yaml(provider=provider.address, refresh_every="1h")
    async with running_importer(tmp_path, fresh_redis, scheduled), running_importer(tmp_path, fresh_redis, scheduled):
        await asked.wait()

    assert provider.asked == [["sun"]]


async def test_what_a_killed_importer_has_changed_and_not_announced_the_next_one_announces(
    importer: Importer, reader: Reader, provider: ScriptedProvider
) -> None:
    (key,) = weather_keys("orphan")
    await reader.redis.sadd(keys.unannounced("weather"), key)

    await refresh(importer, "sun")

    announced = [np.frombuffer(change[b"keys"], "<u8").tolist() for change in await reader.changes()]
    assert announced == [[key], weather_keys("sun")]
    assert await reader.redis.scard(keys.unannounced("weather")) == 0
