"""Profiles as tools write them: a field has one type, whatever each part says of it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from tests.support.importing import Importer, Reader, mesh_yaml, notified, running_importer, warnings
from tests.support.mapping_files import parquet, put


async def test_the_backslashes_of_spark_are_read(importer: Importer, reader: Reader, tmp_path: Path) -> None:
    body = b'user_id,note\nu1,"he said \\"a, b\\""\nu2,"line\nbreak"\n'

    job = await notified(importer, put(tmp_path, {"p.csv": body}) + "/p.csv", profiles=True, csv={"escape": "\\"})

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert await reader.profile("u1") == {"note": 'he said "a, b"'}
    assert await reader.profile("u2") == {"note": "line\nbreak"}


@pytest.mark.parametrize("profiles", [False, True])
async def test_ids_that_a_tool_has_spoiled_are_counted(importer: Importer, tmp_path: Path, profiles: bool) -> None:
    body = b"user_id,contents\n17.0,a\n1e15,a\n17,a\nv1.0,a\n"

    job = await notified(importer, put(tmp_path, {"m.csv": body}) + "/m.csv", profiles=profiles)

    assert warnings(job) == {"id_looks_rounded": 2}


async def test_used_services_that_no_service_is_called_are_counted(importer: Importer, tmp_path: Path) -> None:
    rows = (
        b'{"user_id": "u1", "used_services": ["weather", "wether"]}\n{"user_id": "u2", "used_services": ["comics"]}\n'
    )

    job = await notified(importer, put(tmp_path, {"p.jsonl": rows}) + "/p.jsonl", profiles=True)

    assert warnings(job) == {"unknown_service": 1}
    assert "'wether'" in job.warnings[0].message


PROFILES = {
    "csv": b"user_id,postal_code,age,mixed,tags\nu1,10115,31,7,a\nu2,01067,,x,a|b\n",
    "jsonl": b'{"user_id": "u1", "postal_code": 10115, "age": 31, "mixed": 7, "tags": "a"}\n'
    b'{"user_id": "u2", "postal_code": "01067", "mixed": "x", "tags": ["a", "b"]}\n',
}


@pytest.mark.parametrize("ending", PROFILES)
async def test_a_field_has_one_type_for_everybody(
    importer: Importer, reader: Reader, tmp_path: Path, ending: str
) -> None:
    job = await notified(importer, put(tmp_path, {f"p.{ending}": PROFILES[ending]}) + f"/p.{ending}", profiles=True)

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert await reader.profile("u1") == {"postal_code": "10115", "age": 31.0, "mixed": "7", "tags": ["a"]}
    assert await reader.profile("u2") == {"postal_code": "01067", "mixed": "x", "tags": ["a", "b"]}


async def test_parts_of_different_types_agree_and_partitions_are_fields(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    files = {
        "country=jp/part-0.parquet": parquet({"user_id": ["u1"], "code": [10115]}),
        "country=de%2Fat/part-1.parquet": parquet({"user_id": ["u2"], "code": ["01067"]}),
    }

    job = await notified(importer, put(tmp_path / "p", files), profiles=True)

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert await reader.profile("u1") == {"code": "10115", "country": "jp"}
    assert await reader.profile("u2") == {"code": "01067", "country": "de/at"}


async def test_mesh_yaml_says_what_a_field_is(fresh_redis: str, reader: Reader, tmp_path: Path) -> None:
    mesh = mesh_yaml(importing="max_rejected: 0.5") + "profiles: {postal_code: text, age: number, since: number}\n"
    rows = b"user_id,postal_code,age,since\nu1,10115,31,\nu2,10117,unknown,\n"
    async with running_importer(tmp_path, fresh_redis, mesh) as importer:
        job = await notified(importer, put(tmp_path, {"p.csv": rows}) + "/p.csv", profiles=True)

    assert (job.state, job.progress.rejected_rows) == (pb.IMPORT_STATE_SUCCEEDED, 1), job.error
    assert await reader.profile("u1") == {"postal_code": "10115", "age": 31.0}


async def test_every_type_of_a_parquet_column_that_has_a_meaning_is_read(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    at = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
    table = pa.table(
        {
            "user_id": [1],
            "price": pa.array([Decimal("12.50")], pa.decimal128(10, 2)),
            "born": [date(1990, 5, 1)],
            "seen": pa.array([at], pa.timestamp("ns", "Asia/Tokyo")),
            "local": pa.array([at.replace(tzinfo=None)], pa.timestamp("ms")),
            "premium": [True],
            "genres": pa.array([["drama"]]),
            "kind": pa.array(["x"]).dictionary_encode(),
            "raw": pa.array([b"bytes"]),
            "none": pa.nulls(1),
            "__index_level_0__": [0],
        }
    )

    job = await notified(importer, put(tmp_path, {"p.parquet": parquet(table)}) + "/p.parquet", profiles=True)

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert await reader.profile("1") == {
        "price": 12.5,
        "born": "1990-05-01",
        "seen": "2026-11-22T10:30:00Z",
        "local": "2026-11-22T10:30:00",
        "premium": "true",
        "genres": ["drama"],
        "kind": "x",
        "raw": "bytes",
    }
    assert warnings(job) == {"index_column_ignored": 1}
