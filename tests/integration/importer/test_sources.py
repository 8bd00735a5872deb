"""The same contract for every place where files may lie and every format: a local folder, S3 and HDFS."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.local.hdfs import Hdfs
from banditmesh.local.s3 import S3
from services.importer.sources.filesystems import S3Access, open_filesystem, parse_uri
from tests.support.importing import Reader, mesh_yaml, running_importer
from tests.support.mapping_files import encode, weather_keys
from tests.support.servers import BUCKET

Put = Callable[[str, bytes], str]
"""Writes an object below a fresh folder and returns the folder's URI."""


def _put_file(folder: Path) -> Put:
    def put(name: str, body: bytes) -> str:
        folder.mkdir(exist_ok=True)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
        return folder.as_uri()

    return put


def _put_s3(server: S3) -> Put:
    folder = uuid.uuid4().hex

    def put(name: str, body: bytes) -> str:
        server.client().put_object(Bucket=BUCKET, Key=f"{folder}/{name}", Body=body)
        return f"s3://{BUCKET}/{folder}"

    return put


def _put_hdfs(server: Hdfs) -> Put:
    uri = f"{server.url}/{uuid.uuid4().hex}"
    location = parse_uri(uri)
    filesystem = open_filesystem(location, S3Access(None, "us-east-1"))

    def put(name: str, body: bytes) -> str:
        filesystem.create_dir(f"{location.name}/{name}".rpartition("/")[0])
        with filesystem.open_output_stream(f"{location.name}/{name}", compression=None) as stream:
            stream.write(body)
        return uri

    return put


@pytest.fixture(params=["file", "s3", "hdfs"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Put:
    if request.param == "file":
        return _put_file(tmp_path / "source")
    server = request.getfixturevalue(request.param)
    return _put_s3(server) if request.param == "s3" else _put_hdfs(server)


@pytest.fixture
def settings(request: pytest.FixtureRequest, put: Put) -> Mapping[str, str]:
    """With files on S3 the mesh's store is there too: that is how the importer knows the endpoint."""
    return {"store": request.getfixturevalue("fresh_store")} if "s3" in request.node.callspec.id else {}


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "csv.gz", "jsonl.gz"])
async def test_a_folder_of_parts_is_imported(
    fresh_redis: str, reader: Reader, tmp_path: Path, put: Put, settings: Mapping[str, str], ending: str
) -> None:
    for part in range(11):
        rows = [{"user_id": f"u{part}-{i}", "contents": ["sun", f"c{part}"]} for i in range(70)]
        uri = put(f"part-{part}.{ending}", encode([*rows, {"user_id": "last", "contents": [f"c{part}"]}], ending))
    put("_SUCCESS", b"")

    async with running_importer(tmp_path, fresh_redis, mesh_yaml(importing="batch_rows: 30"), **settings) as importer:
        job = await importer.import_mapping(uri)

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert (job.progress.parts_total, job.progress.parts_done, job.progress.rows) == (11, 11, 11 * 71)
    assert job.progress.bytes_done == job.progress.bytes_total > 0
    assert await reader.candidates("u7-69") == weather_keys("sun", "c7")
    assert await reader.candidates("last") == weather_keys("c10")


async def test_partitions_are_read_and_other_folders_are_not(
    fresh_redis: str, reader: Reader, tmp_path: Path, put: Put, settings: Mapping[str, str]
) -> None:
    for part in range(3):
        rows = [{"user_id": f"u{part}", "age": 30 + part}]
        put(f"country=c{part}/dt=2026-11-2{part}/000000_{part}", encode(rows, "parquet"))
    put("country=c0/_temporary/0/part-1.parquet", b"unfinished")
    uri = put("old/part-0.csv", b"nonsense")

    async with running_importer(tmp_path, fresh_redis, mesh_yaml(), **settings) as importer:
        job = await importer.import_profiles(uri)

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert await reader.profile("u1") == {"age": 31.0, "country": "c1", "dt": "2026-11-21"}
    assert [(each.reason, each.count) for each in job.warnings] == [("unfinished_folder", 1), ("subfolder_ignored", 1)]


async def test_one_file_is_imported_and_its_rejects_are_found(
    fresh_redis: str, reader: Reader, tmp_path: Path, put: Put, settings: Mapping[str, str]
) -> None:
    folder = put("m.csv", b"user_id,contents\nu,sun\n,rain\n")

    async with running_importer(
        tmp_path, fresh_redis, mesh_yaml(importing="max_rejected: 0.5"), **settings
    ) as importer:
        job = await importer.import_mapping(f"{folder}/m.csv")

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert job.rejects_uri.endswith(f"rejects/{job.job_id}.jsonl")
    assert await reader.candidates("u") == weather_keys("sun")


async def test_what_does_not_exist_is_said_to(
    fresh_redis: str, tmp_path: Path, put: Put, settings: Mapping[str, str]
) -> None:
    folder = put("other.csv", b"user_id,contents\n")

    async with running_importer(tmp_path, fresh_redis, mesh_yaml(), **settings) as importer:
        file = await importer.import_mapping(f"{folder}/m.csv", "v1")
        missing = await importer.import_mapping(f"{folder}-nothing", "v2")

    assert (file.error.reason, file.error.file) == ("file_not_found", f"{folder}/m.csv")
    assert missing.error.reason == "file_not_found"


async def test_an_unreadable_parquet_file_is_said_to_be(
    fresh_redis: str, tmp_path: Path, put: Put, settings: Mapping[str, str]
) -> None:
    body = encode([{"user_id": f"u{i}", "contents": ["sun"]} for i in range(500)], "parquet")
    folder = put("m.parquet", body[:-20])

    async with running_importer(tmp_path, fresh_redis, mesh_yaml(), **settings) as importer:
        job = await importer.import_mapping(folder)

    assert (job.error.reason, job.error.file) == ("unreadable_file", f"{folder}/m.parquet")


async def test_an_hdfs_that_refuses_fails_the_job_and_holds_nobody(
    fresh_redis: str, reader: Reader, tmp_path: Path
) -> None:
    good = _put_file(tmp_path / "source")("m.csv", b"user_id,contents\nu,sun\n")
    async with running_importer(tmp_path, fresh_redis, mesh_yaml(), import_jobs=1) as importer:
        away = await importer.import_mapping("hdfs://127.0.0.1:1/exports/m.csv", logic="tomorrow")
        job = await importer.import_mapping(good)

    assert (away.error.reason, job.state) == ("source_unavailable", pb.IMPORT_STATE_SUCCEEDED)
    assert "127.0.0.1:1 cannot be reached (Connection refused)" in away.error.message


async def test_an_import_works_on_a_cluster(fresh_redis_cluster: str, tmp_path: Path) -> None:
    reader = Reader(fresh_redis_cluster)
    rows = [{"user_id": f"u{i}", "contents": ["sun", f"c{i}"]} for i in range(100)]
    put = _put_file(tmp_path / "source")
    async with running_importer(tmp_path, fresh_redis_cluster, mesh_yaml()) as importer:
        first = await importer.import_mapping(put("m.parquet", encode(rows, "parquet")), "v1")
        second = await importer.import_mapping(put("m.parquet", encode(rows[:50], "parquet")), "v2")

    assert (first.state, second.state) == (pb.IMPORT_STATE_SUCCEEDED, pb.IMPORT_STATE_SUCCEEDED)
    assert await reader.candidates("u49") == weather_keys("sun", "c49")
    assert await reader.candidates("u50") is None
    await reader.close()
