"""What callers get over a real socket: statuses for wrong requests, and jobs that can be asked for, watched, listed
and cancelled.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.runtime import keys
from tests.support.eventually import eventually
from tests.support.importing import Importer, Reader, ScriptedProvider, StuckProvider, mesh_yaml, running_importer
from tests.support.mapping_files import mapping, weather_keys, write

GOOD = {"service": "weather", "logic": "today", "uri": "file:///m.csv", "version": "v1"}


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


def wrong_field(error: grpc.aio.AioRpcError) -> str:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"])
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    return str(bad.field_violations[0].field)


@pytest.mark.parametrize(
    ("changed", "code", "field", "said"),
    [
        ({"service": ""}, "INVALID_ARGUMENT", "service", "empty"),
        ({"service": "x" * 65}, "INVALID_ARGUMENT", "service", "longer than 64"),
        ({"service": "wether"}, "NOT_FOUND", "service", "comics, weather"),
        ({"logic": ""}, "INVALID_ARGUMENT", "logic", "empty"),
        ({"logic": "yesterday"}, "NOT_FOUND", "logic", "today, tomorrow"),
        ({"uri": ""}, "INVALID_ARGUMENT", "uri", "empty"),
        ({"uri": "file:///" + "x" * 1024}, "INVALID_ARGUMENT", "uri", "longer than 1024"),
        ({"uri": "ftp://host/m.csv"}, "INVALID_ARGUMENT", "uri", "hdfs://"),
        ({"uri": "m.csv"}, "INVALID_ARGUMENT", "uri", "unsupported scheme"),
        ({"uri": "s3://bucket"}, "INVALID_ARGUMENT", "uri", "names no file"),
        ({"uri": "s3://bucket/exports//m.csv"}, "INVALID_ARGUMENT", "uri", "leave one out"),
        ({"uri": "s3://key:secret@bucket/m.csv"}, "INVALID_ARGUMENT", "uri", "credentials"),
        ({"version": ""}, "INVALID_ARGUMENT", "version", "1 to 64"),
        ({"version": "v 1"}, "INVALID_ARGUMENT", "version", "1 to 64"),
        ({"version": "v" * 65}, "INVALID_ARGUMENT", "version", "1 to 64"),
    ],
)
async def test_a_wrong_notification_is_refused_with_the_field_and_what_would_be_right(
    importer: Importer, changed: dict[str, str], code: str, field: str, said: str
) -> None:
    error = await refused(importer.stub.NotifyMapping(pb.NotifyMappingRequest(**{**GOOD, **changed})))

    assert error.code().name == code
    assert said in (error.details() or "")
    assert wrong_field(error) == field


@pytest.mark.parametrize("method", ["GetImportJob", "CancelImportJob", "WatchImportJob"])
@pytest.mark.parametrize(
    ("job_id", "code"), [("", "INVALID_ARGUMENT"), ("x" * 257, "INVALID_ARGUMENT"), ("nothing", "NOT_FOUND")]
)
async def test_a_job_that_does_not_exist_is_said_to(importer: Importer, method: str, job_id: str, code: str) -> None:
    call = getattr(importer.stub, method)(getattr(pb, f"{method}Request")(job_id=job_id))

    error = await refused(call.read() if method == "WatchImportJob" else call)

    assert (error.code().name, wrong_field(error)) == (code, "job_id")


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (pb.ListImportJobsRequest(service="nobody"), "NOT_FOUND", "service"),
        (pb.ListImportJobsRequest(page_size=501), "INVALID_ARGUMENT", "page_size"),
    ],
)
async def test_a_wrong_listing_is_refused(importer: Importer, request_: Any, code: str, field: str) -> None:
    error = await refused(importer.stub.ListImportJobs(request_))

    assert (error.code().name, wrong_field(error)) == (code, field)


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (pb.RefreshContentsRequest(service="nobody"), "NOT_FOUND", "service"),
        (pb.RefreshContentsRequest(service="comics"), "FAILED_PRECONDITION", "service"),
        (pb.RefreshContentsRequest(service="weather", content_ids=["ok", ""]), "INVALID_ARGUMENT", "content_ids[1]"),
        (pb.RefreshContentsRequest(service="weather", content_ids=["x" * 257]), "INVALID_ARGUMENT", "content_ids[0]"),
        (pb.RefreshContentsRequest(service="weather", content_ids=["x"] * 501), "INVALID_ARGUMENT", "content_ids"),
    ],
)
async def test_a_wrong_refresh_is_refused(importer: Importer, request_: Any, code: str, field: str) -> None:
    error = await refused(importer.stub.RefreshContents(request_))

    assert (error.code().name, wrong_field(error)) == (code, field)


async def test_the_same_request_gives_the_same_job(importer: Importer, tmp_path: Path) -> None:
    uri = write(tmp_path / "m.csv", mapping(1, "sun"))
    job = await importer.import_mapping(uri)

    again = await importer.notify(uri)

    assert again == job
    assert importer.metric("rows_total", kind="mapping") == 1


async def test_a_live_version_that_is_notified_again_lives_on(fresh_redis: str, reader: Reader, tmp_path: Path) -> None:
    uri = write(tmp_path / "m.csv", mapping(1, "sun"))
    async with running_importer(tmp_path, fresh_redis, mesh_yaml(importing="mapping_ttl: 10s")) as importer:
        await importer.import_mapping(uri)
        first = await reader.live()
        assert first is not None

        async def renewed() -> bool:
            return (
                await importer.import_mapping(uri)
            ).state == pb.IMPORT_STATE_SUCCEEDED and await reader.live() != first

        await eventually(renewed)
        second = await reader.live()
        assert second is not None
        value = keys.candidates(keys.user_tag("u0"), "weather/today", second.slot)

    assert second.name == first.name
    assert await reader.candidates("u0") == weather_keys("sun")
    assert await reader.redis.pttl(value) > 8000


async def test_a_version_that_nothing_is_left_of_is_imported_again(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    uri = write(tmp_path / "m.csv", mapping(1, "sun"))
    await importer.import_mapping(uri)
    await reader.redis.delete(keys.live("weather/today"))

    job = await importer.import_mapping(uri)

    assert job.state == pb.IMPORT_STATE_SUCCEEDED
    assert await reader.candidates("u0") == weather_keys("sun")


async def test_an_older_version_is_not_brought_back_by_being_notified_again(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    old, new = (write(tmp_path / f"{name}.csv", mapping(1, name)) for name in ("old", "new"))
    await importer.import_mapping(old, "v1")
    await importer.import_mapping(new, "v2")

    await importer.import_mapping(old, "v1")

    assert await reader.candidates("u0") == weather_keys("new")


async def test_a_metric_says_when_each_live_version_ends(fresh_redis: str, tmp_path: Path) -> None:
    async with running_importer(tmp_path, fresh_redis, mesh_yaml(importing="mapping_ttl: 1h")) as importer:
        await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun")))
    async with running_importer(tmp_path, fresh_redis, mesh_yaml(importing="mapping_ttl: 1h")) as importer:

        async def known() -> bool:
            return importer.metric("live_ends_timestamp_seconds", source="weather/today") > 0

        await eventually(known)
        left_s = importer.metric("live_ends_timestamp_seconds", source="weather/today") - time.time()
        never = importer.server.registry.get_sample_value(
            "banditmesh_importer_live_ends_timestamp_seconds", {"source": "comics/similar"}
        )

    assert 3000 < left_s <= 3601
    assert never == 0


async def test_the_same_version_of_another_file_is_refused_with_both_uris(importer: Importer, tmp_path: Path) -> None:
    one, other = (write(tmp_path / name, mapping(1, "sun")) for name in ("one.csv", "other.csv"))
    await importer.import_mapping(one)

    error = await refused(importer.notify(other))

    assert error.code() == grpc.StatusCode.ALREADY_EXISTS
    assert one in (error.details() or "")
    assert other in (error.details() or "")


async def test_a_job_that_failed_starts_anew_when_it_is_asked_for_again(importer: Importer, tmp_path: Path) -> None:
    uri = (tmp_path / "m.csv").as_uri()
    failed = await importer.import_mapping(uri)
    assert failed.error.reason == "file_not_found"
    write(tmp_path / "m.csv", mapping(1, "sun"))

    job = await importer.import_mapping(uri)

    assert (job.job_id, job.state) == (failed.job_id, pb.IMPORT_STATE_SUCCEEDED)
    assert not job.HasField("error")


async def test_jobs_are_listed_the_newest_first_and_by_service(importer: Importer, tmp_path: Path) -> None:
    uri = write(tmp_path / "m.csv", mapping(1, "sun"))
    first = await importer.import_mapping(uri, "v1", "today")
    second = await importer.import_mapping(uri, "v1", "tomorrow")
    other = await importer.ended(await importer.notify(uri, logic="similar", service="comics"))

    async def listed(**request: Any) -> list[str]:
        jobs = (await importer.stub.ListImportJobs(pb.ListImportJobsRequest(**request))).jobs
        return [job.job_id for job in jobs]

    assert await listed() == [other.job_id, second.job_id, first.job_id]
    assert await listed(service="weather") == [second.job_id, first.job_id]
    assert await listed(page_size=1) == [other.job_id]


async def test_a_watcher_sees_the_progress_batch_by_batch(importer: Importer, tmp_path: Path) -> None:
    job = await importer.notify(write(tmp_path / "m.csv", mapping(100, "sun")))

    rows = [
        change.job.progress.rows
        async for change in importer.stub.WatchImportJob(pb.WatchImportJobRequest(job_id=job.job_id))
    ]

    assert rows == sorted(rows)
    assert rows[-1] == 100
    assert len(set(rows)) > 2


async def test_a_cancelled_job_ends_and_the_old_version_stays(
    importer: Importer, provider: ScriptedProvider, reader: Reader, tmp_path: Path
) -> None:
    await importer.import_mapping(write(tmp_path / "1.csv", mapping(30, "old")), "v1")
    stuck = StuckProvider(provider, "new")
    job = await importer.notify(write(tmp_path / "2.csv", mapping(30, "new")), "v2")
    await stuck.reached.wait()
    cancelling = (await importer.stub.CancelImportJob(pb.CancelImportJobRequest(job_id=job.job_id))).job
    stuck.released.set()

    job = await importer.ended(job)

    assert cancelling.state == pb.IMPORT_STATE_RUNNING
    assert (job.state, job.owner) == (pb.IMPORT_STATE_CANCELLED, "")
    assert await reader.candidates("u0") == weather_keys("old")


async def test_a_job_that_waits_can_be_cancelled(
    importer: Importer, provider: ScriptedProvider, tmp_path: Path
) -> None:
    stuck = StuckProvider(provider, "sun")
    uri = write(tmp_path / "m.csv", mapping(1, "sun"))
    await importer.notify(uri, "v1")
    await stuck.reached.wait()
    waiting = await importer.notify(uri, "v2")
    await importer.stub.CancelImportJob(pb.CancelImportJobRequest(job_id=waiting.job_id))
    stuck.released.set()

    assert (await importer.ended(waiting)).state == pb.IMPORT_STATE_CANCELLED


async def test_a_job_that_has_succeeded_cannot_be_cancelled(importer: Importer, tmp_path: Path) -> None:
    job = await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun")))

    error = await refused(importer.stub.CancelImportJob(pb.CancelImportJobRequest(job_id=job.job_id)))

    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
