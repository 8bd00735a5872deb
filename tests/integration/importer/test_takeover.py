"""Importers that die, stop, race, and lose their leases."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.contracts.importer.v1 import importer_pb2_grpc
from banditmesh.runtime import keys
from banditmesh.runtime.clock import SystemClock
from banditmesh.runtime.packing import LiveVersion
from banditmesh.runtime.redis import RedisClient
from services.importer.failure import ImportFailed
from services.importer.job import Job, Kind, UnreadableJob
from services.importer.jobs import Jobs
from services.importer.lease import LeaseLost, Leases
from services.importer.live import LivePointers
from tests.support.importing import Importer, Reader, ScriptedProvider, StuckProvider, mesh_yaml, running_importer
from tests.support.mapping_files import mapping, weather_keys, write

ROWS = [{"user_id": f"u{i}", "contents": ["sun", f"c{i}"]} for i in range(200)]
BATCH = "batch_rows: 20, lease: 1s, provider_timeout: 30s"


def written(folder: Path, mesh: str) -> Path:
    folder.mkdir(exist_ok=True)
    config = folder / "mesh.yaml"
    config.write_text(mesh)
    return config


@asynccontextmanager
async def importer_process(folder: Path, redis: str, mesh: str) -> AsyncIterator[tuple[Any, int]]:
    """An importer as a process of its own, and its port."""
    config = written(folder, mesh)
    environment = {
        **os.environ,
        "BANDITMESH_REDIS": redis,
        "BANDITMESH_STORE": (folder / "store").as_uri(),
        "BANDITMESH_LOG_FORMAT": "json",
        "BANDITMESH_IMPORT_LOCAL_FILES": "true",
    }
    command = ("-m", "services.importer", "--config", str(config))
    ports = ("--grpc-address", "127.0.0.1:0", "--metrics-port", "0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, *ports, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while b'"event": "serving"' not in (line := await process.stderr.readline()):
            assert line, "the importer did not start"
        port = int(line.split(b'"address": "127.0.0.1:')[1].split(b'"')[0])
        yield process, port
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(("ending", "first_again"), [("parquet", 120), ("csv", 119)])  # a CSV has its header besides
async def test_what_a_killed_importer_left_another_one_finishes_as_if_nothing_had_happened(
    fresh_redis: str, reader: Reader, provider: ScriptedProvider, tmp_path: Path, ending: str, first_again: int
) -> None:
    mesh = mesh_yaml(provider=provider.address, importing=BATCH)
    uri = write(tmp_path / f"m.{ending}", ROWS)
    stuck = StuckProvider(provider, "c130")
    async with (
        importer_process(tmp_path / "first", fresh_redis, mesh) as (process, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = importer_pb2_grpc.ImporterServiceStub(channel)
        request = pb.NotifyMappingRequest(service="weather", logic="today", uri=uri, version="v1")
        job = (await stub.NotifyMapping(request)).job
        await stuck.reached.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert await reader.live() is None
    provider.asked.clear()
    stuck.released.set()

    async with running_importer(tmp_path, fresh_redis, mesh) as second:
        job = await second.ended(job)

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert (job.resumed, job.progress.rows, job.progress.new_contents) == (1, 200, 201)
    assert {user: await reader.candidates(f"u{user}") for user in range(200)} == {
        user: weather_keys("sun", f"c{user}") for user in range(200)
    }
    asked_again = {content_id for batch in provider.asked for content_id in batch}
    assert asked_again == {f"c{i}" for i in range(first_again, 200)}


async def test_a_job_whose_files_changed_before_it_was_resumed_fails_rather_than_mix_them(
    fresh_redis: str, reader: Reader, provider: ScriptedProvider, tmp_path: Path
) -> None:
    mesh = mesh_yaml(provider=provider.address, importing=BATCH)
    uri = write(tmp_path / "m.csv", ROWS)
    stuck = StuckProvider(provider, "c130")
    async with running_importer(tmp_path, fresh_redis, mesh) as first:
        job = await first.notify(uri)
        await stuck.reached.wait()
    stuck.released.set()
    write(tmp_path / "m.csv", ROWS[:150])

    async with running_importer(tmp_path, fresh_redis, mesh) as second:
        job = await second.ended(job)

    assert (job.state, job.error.reason) == (pb.IMPORT_STATE_FAILED, "source_changed")
    assert await reader.live() is None


async def test_a_stopped_importer_gives_its_job_back_at_once(
    fresh_redis: str, provider: ScriptedProvider, tmp_path: Path
) -> None:
    mesh = mesh_yaml(provider=provider.address, importing="batch_rows: 20, lease: 60s, provider_timeout: 30s")
    uri = write(tmp_path / "m.csv", ROWS)
    stuck = StuckProvider(provider, "c130")
    async with running_importer(tmp_path, fresh_redis, mesh) as first:
        job = await first.notify(uri)
        await stuck.reached.wait()
    stuck.released.set()

    async with running_importer(tmp_path, fresh_redis, mesh) as second:
        job = (await second.stub.GetImportJob(pb.GetImportJobRequest(job_id=job.job_id))).job
        job = await second.ended(job)

    assert (job.state, job.resumed) == (pb.IMPORT_STATE_SUCCEEDED, 1)


async def test_of_two_importers_one_does_the_job(fresh_redis: str, provider: ScriptedProvider, tmp_path: Path) -> None:
    mesh = mesh_yaml(provider=provider.address, importing="batch_rows: 20")
    uri = write(tmp_path / "m.csv", ROWS)
    async with (
        running_importer(tmp_path, fresh_redis, mesh) as one,
        running_importer(tmp_path, fresh_redis, mesh) as two,
    ):
        jobs = await asyncio.gather(*(importer.notify(uri) for importer in (one, two) * 5))
        ended = await asyncio.gather(*(two.ended(job) for job in jobs))

        assert {job.job_id for job in ended} == {jobs[0].job_id}
        assert {(job.state, job.resumed) for job in ended} == {(pb.IMPORT_STATE_SUCCEEDED, 0)}
        labels = {"kind": "mapping", "state": "succeeded", "reason": ""}
        assert one.metric("jobs_ended_total", **labels) + two.metric("jobs_ended_total", **labels) == 1
        assert one.metric("rows_total", kind="mapping") + two.metric("rows_total", kind="mapping") == 200
    assert sum(map(len, provider.asked)) == 201


async def test_versions_of_one_source_are_imported_one_after_the_other(
    importer: Importer, provider: ScriptedProvider, reader: Reader, tmp_path: Path
) -> None:
    stuck = StuckProvider(provider, "c130")
    first = await importer.notify(write(tmp_path / "1.csv", ROWS), "v1")
    await stuck.reached.wait()
    second = await importer.notify(write(tmp_path / "2.csv", mapping(1, "rain")), "v2")
    assert second.state == pb.IMPORT_STATE_PENDING
    stuck.released.set()

    second = await importer.ended(second)

    first = await importer.ended(first)
    assert (first.state, second.state) == (pb.IMPORT_STATE_SUCCEEDED, pb.IMPORT_STATE_SUCCEEDED)
    assert await reader.candidates("u0") == weather_keys("rain")
    assert await reader.candidates("u1") is None


async def test_readers_see_the_old_or_the_new_version_and_never_a_mix(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    users = range(60)
    await importer.import_mapping(write(tmp_path / "1.csv", mapping(60, "old")), "v1")
    seen: set[tuple[int, ...]] = set()
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            live = await reader.live()
            assert live is not None
            names = [keys.candidates(keys.user_tag(f"u{user}"), "weather/today", live.slot) for user in users]
            values = await reader.redis.mget(names)
            versions = {int.from_bytes(value[:4], "little") for value in values if value is not None}
            assert versions == {live.version}
            seen.add((live.version, len([value for value in values if value is not None])))

    reading = asyncio.create_task(read())
    await importer.import_mapping(write(tmp_path / "2.csv", mapping(60, "new")), "v2")
    done.set()
    await reading

    assert {count for _, count in seen} == {60}
    assert await reader.candidates("u0") == weather_keys("new")


async def test_an_importer_whose_lease_went_to_another_writes_nothing_more(fresh_redis: str) -> None:
    redis, clock = RedisClient(fresh_redis, timeout_s=5), SystemClock()
    jobs = Jobs(redis)
    job = Job("j", Kind.MAPPING, "weather", "today", "file:///m.csv", "v1", 1, 1)
    await jobs.create(job)
    old = await Leases(redis, clock, owner="old", ttl_s=60).acquire("weather/today")
    assert old is not None
    await redis.client.delete(keys.source_lease("weather/today"))
    new = await Leases(redis, clock, owner="new", ttl_s=60).acquire("weather/today")
    assert new is not None
    await jobs.save(job, new)

    with pytest.raises(LeaseLost):
        await jobs.save(job, old)
    assert new.number > old.number
    await redis.close()


async def test_a_job_that_only_a_newer_release_can_read_is_left_to_it_and_stops_no_other(fresh_redis: str) -> None:
    redis = RedisClient(fresh_redis, timeout_s=5)
    jobs = Jobs(redis)
    newer, ours = (Job(name, Kind.MAPPING, "weather", name, "file:///m.csv", "v1", 1, 1) for name in ("newer", "ours"))
    for job in (newer, ours):
        await jobs.create(job)
    await redis.client.hset(keys.job("newer"), "record", newer.to_json().replace(b'"mapping"', b'"vectors"'))

    assert [listed.job for listed in await jobs.unended()] == [ours]
    assert await jobs.recent("", 10) == [ours]
    with pytest.raises(UnreadableJob, match="cannot be read by this release"):
        await jobs.get("newer")

    await redis.client.hset(keys.job("newer"), "record", newer.to_json())  # it was not struck off
    assert {listed.job.id for listed in await jobs.unended()} == {"newer", "ours"}
    await redis.close()


async def test_a_version_does_not_go_live_without_the_lease_or_over_another_version(
    fresh_redis: str, reader: Reader
) -> None:
    redis = RedisClient(fresh_redis, timeout_s=5)
    pointers = LivePointers(redis, ttl_s=60)
    lease = await Leases(redis, SystemClock(), owner="one", ttl_s=60).acquire("weather/today")
    assert lease is not None
    await redis.client.set(keys.live("weather/today"), "9:1:other")

    with pytest.raises(ImportFailed) as failed:
        await pointers.go_live(lease, "8:0:base", LiveVersion(10, 1, "mine"))
    await redis.client.set(keys.source_lease("weather/today"), "another")
    with pytest.raises(LeaseLost):
        await pointers.go_live(lease, "9:1:other", LiveVersion(10, 0, "mine"))

    assert failed.value.failure.reason == "superseded"
    assert await reader.live() == LiveVersion(9, 1, "other")
    await redis.close()


async def test_a_lease_is_given_once_until_it_is_given_back(fresh_redis: str) -> None:
    redis = RedisClient(fresh_redis, timeout_s=5)
    leases = Leases(redis, SystemClock(), owner="one", ttl_s=60)
    first = await leases.acquire("weather/today")
    assert first is not None

    assert await leases.acquire("weather/today") is None
    assert await leases.acquire("weather/tomorrow") is not None
    await first.release()
    assert await leases.acquire("weather/today") is not None
    await redis.close()


async def test_an_import_goes_on_when_redis_was_away(
    importer: Importer, provider: ScriptedProvider, reader: Reader, tmp_path: Path
) -> None:
    stuck = StuckProvider(provider, "c130")
    job = await importer.notify(write(tmp_path / "m.csv", ROWS))
    await stuck.reached.wait()
    killed = await reader.redis.client_kill_filter(_type="normal", skipme=True)
    stuck.released.set()

    while job.state != pb.IMPORT_STATE_SUCCEEDED:
        with suppress(grpc.aio.AioRpcError):  # the watch needs Redis too; watch again
            job = await importer.ended(job)

    assert killed > 0
    assert job.state == pb.IMPORT_STATE_SUCCEEDED
    assert await reader.candidates("u199") == weather_keys("sun", "c199")
