"""What an importer reads and what it gives away: only what ``importing.allowed_uris`` allows, and never the content of
a file that is no mapping.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from tests.support.importing import Importer, mesh_yaml, notified, running_importer
from tests.support.mapping_files import mapping, write

SECRETS = b"operator:x:0:0:hunter2\ndaemon:x:1:1:hunter2\n"


def allowing(*folders: str) -> str:
    return mesh_yaml(importing=f"allowed_uris: {list(folders)}")


async def refusal(importer: Importer, uri: str) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await importer.notify(uri)
    return error.value.code().name, error.value.details() or ""


async def test_local_files_are_refused_unless_they_are_allowed(fresh_redis: str, tmp_path: Path) -> None:
    uri = write(tmp_path / "m.csv", mapping(1, "sun"))

    async with running_importer(tmp_path, fresh_redis, mesh_yaml(), import_local_files=False) as importer:
        code, said = await refusal(importer, uri)

    assert code == "PERMISSION_DENIED"
    assert "importing.allowed_uris" in said
    assert "hdfs://, s3://" in said


@pytest.mark.parametrize(
    "uri",
    ["s3://other/m.csv", "s3://exports2/m.csv", "s3://exports/team2/m.csv", "hdfs://namenode:8020/exports/team/m.csv"],
)
async def test_what_is_not_below_an_allowed_uri_is_refused(fresh_redis: str, tmp_path: Path, uri: str) -> None:
    async with running_importer(tmp_path, fresh_redis, allowing("s3://exports/team", "file:///exports")) as importer:
        code, said = await refusal(importer, uri)

    assert code == "PERMISSION_DENIED"
    assert "s3://exports/team" in said


async def test_dots_do_not_lead_out_of_an_allowed_folder(fresh_redis: str, tmp_path: Path) -> None:
    async with running_importer(tmp_path, fresh_redis, allowing(tmp_path.as_uri())) as importer:
        code, said = await refusal(importer, f"{tmp_path.as_uri()}/%2e%2e/m.csv")

    assert (code, "'..'" in said) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("where", ["m.jsonl", "", "linked/m.jsonl"])
async def test_no_symbolic_link_leads_out_of_an_allowed_folder(fresh_redis: str, tmp_path: Path, where: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "m.jsonl").write_bytes(SECRETS)
    exports = tmp_path / "exports"
    exports.mkdir()
    (exports / "m.jsonl").symlink_to(tmp_path / "secrets" / "m.jsonl")
    (exports / "linked").symlink_to(tmp_path / "secrets")

    async with running_importer(tmp_path, fresh_redis, allowing(exports.as_uri())) as importer:
        job = await importer.import_mapping(f"{exports.as_uri()}/{where}")

    assert (job.state, job.error.reason) == (pb.IMPORT_STATE_FAILED, "not_allowed")
    assert "symbolic link" in job.error.message
    assert (job.progress.rows, "hunter2" in str(job)) == (0, False)


async def test_a_link_inside_an_allowed_folder_is_followed(fresh_redis: str, tmp_path: Path) -> None:
    write(tmp_path / "exports" / "2026-11-22" / "m.csv", mapping(1, "sun"))
    (tmp_path / "exports" / "newest").symlink_to("2026-11-22")
    (tmp_path / "alias").symlink_to("exports")

    async with running_importer(tmp_path, fresh_redis, allowing((tmp_path / "alias").as_uri())) as importer:
        job = await importer.import_mapping((tmp_path / "alias" / "newest" / "m.csv").as_uri())

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "csv.gz"])
@pytest.mark.parametrize("what", ["mapping", "profiles"])
async def test_what_is_no_mapping_is_never_quoted(importer: Importer, tmp_path: Path, ending: str, what: str) -> None:
    (tmp_path / f"m.{ending}").write_bytes(SECRETS)
    uri = (tmp_path / f"m.{ending}").as_uri()

    job = await (importer.import_mapping(uri) if what == "mapping" else importer.import_profiles(uri))

    written = [path.read_text() for path in (tmp_path / "store").rglob("*.jsonl")]
    assert job.state == pb.IMPORT_STATE_FAILED
    assert "hunter2" not in f"{job} {written}"
    assert "operator" not in f"{job} {written}"


async def test_what_does_not_fit_the_columns_that_a_caller_names_is_not_quoted(
    importer: Importer, tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_bytes(SECRETS + b"\xff:hunter2\n" + b'"hunter2\n')
    csv = pb.CsvOptions(columns=["user_id", "contents"], delimiter=":")

    job = await notified(importer, (tmp_path / "m.csv").as_uri(), csv=csv)

    written = [path.read_text() for path in (tmp_path / "store").rglob("*.jsonl")]
    assert (job.error.reason, job.progress.rejected_rows) == ("too_many_rejects", 4)
    assert "hunter2" not in f"{job} {written}"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
async def test_what_is_no_file_is_said_not_to_be_one(importer: Importer, tmp_path: Path, make: Any) -> None:
    make(tmp_path / "m.csv")

    job = await importer.import_mapping((tmp_path / "m.csv").as_uri())

    assert job.error.reason == "unreadable_file"
    assert "is a FIFO" in job.error.message or "is a device" in job.error.message
