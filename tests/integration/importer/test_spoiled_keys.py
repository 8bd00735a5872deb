"""Keys of the importer that hold something else: imports and refreshes go on, whatever stands in Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.runtime import keys
from services.importer.job import Kind, job_id
from tests.support.eventually import eventually
from tests.support.importing import Importer, Reader, ScriptedProvider, mesh_yaml, running_importer
from tests.support.mapping_files import mapping, weather_keys, write
from tests.support.spoiled import of_another_type

SOURCE = "weather/today"
JOB = job_id(Kind.MAPPING, "weather", "today", "v2")
NAMES = [
    keys.live(SOURCE),
    keys.source_lease(SOURCE),
    keys.source_counter(SOURCE),
    keys.content(content_key("weather", "sun")),
    keys.known_contents("weather"),
    keys.unannounced("weather"),
    keys.refreshed("weather"),
    keys.refresh_lease("weather"),
    keys.candidates(keys.user_tag("u0"), SOURCE, 0),
    keys.candidates(keys.user_tag("u0"), SOURCE, 1),
    keys.CHANGES,
    keys.JOBS,
    keys.OPEN_JOBS,
    keys.job(JOB),
    keys.job_rejects(JOB),
    keys.job_contents(JOB, "new"),
    keys.job_contents(JOB, "missing"),
]
VALUES = [b"", b"7", b"\xff\x00:\xfe", b"\xff" * 10_000_000, b"9:7:3:what only a newer release knows"]


async def holding(redis: Any, key: str, value: bytes) -> None:
    """Let a key, or one more member of it, hold a value."""
    kind = keys.kind(key)
    if kind == "string":
        await redis.set(key, value)
    elif kind == "hash":
        await redis.hset(key, mapping={"fence": value, b"x" + value[:100]: value})
    elif kind == "zset":
        await redis.zadd(key, {value: 10.0**15})
    elif kind == "set":
        await redis.sadd(key, value)
    elif kind == "list":
        await redis.rpush(key, value)
    else:
        await redis.xadd(key, {"kind": value, b"x" + value[:100]: value})


async def until_done(call: Any) -> Any:
    """What a client does that is told to try again."""
    last: list[Any] = []

    async def once() -> bool:
        try:
            last.append(await call())
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True

    await eventually(once)
    return last[-1]


async def imports_and_refreshes(importer: Importer, reader: Reader, folder: Path, version: str) -> None:
    uri = write(folder / f"{version}.csv", mapping(3, "sun", "rain"))
    job = await until_done(lambda: importer.notify(uri, version))
    job = await until_done(lambda: importer.ended(job))
    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job
    assert await reader.candidates("u0") == weather_keys("sun", "rain")
    assert await reader.content("sun") is not None
    request = pb.RefreshContentsRequest(service="weather")
    assert (await until_done(lambda: importer.stub.RefreshContents(request))).requested >= 2
    listed = await until_done(lambda: importer.stub.ListImportJobs(pb.ListImportJobsRequest()))
    assert version in {each.version for each in listed.jobs}


@pytest.mark.parametrize("name", NAMES)
async def test_a_key_of_another_type_stops_no_import_and_no_refresh(
    importer: Importer, reader: Reader, tmp_path: Path, name: str
) -> None:
    await imports_and_refreshes(importer, reader, tmp_path, "v1")
    await of_another_type(reader.redis, name)
    await imports_and_refreshes(importer, reader, tmp_path, "v2")


@pytest.mark.parametrize("value", VALUES, ids=["nothing", "short", "garbage", "10 MB", "newer"])
async def test_values_that_cannot_be_read_stop_no_import_and_no_refresh(
    importer: Importer, reader: Reader, tmp_path: Path, value: bytes
) -> None:
    await imports_and_refreshes(importer, reader, tmp_path, "v1")
    for name in NAMES:
        await holding(reader.redis, name, value)
    await imports_and_refreshes(importer, reader, tmp_path, "v2")


@pytest.mark.parametrize("name", [keys.refreshed("weather"), keys.refresh_lease("weather")])
async def test_a_mark_that_never_ends_does_not_end_the_scheduled_refreshes(
    fresh_redis: str, reader: Reader, provider: ScriptedProvider, tmp_path: Path, name: str
) -> None:
    await reader.redis.set(name, b"for ever")
    mesh = mesh_yaml(provider=provider.address, refresh_every="100ms")
    async with running_importer(tmp_path, fresh_redis, mesh) as importer:
        await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun")))
        asked = len(provider.asked)
        await eventually(lambda: _truth(len(provider.asked) > asked))


async def _truth(value: bool) -> bool:
    return value
