"""Files that break: what the job says of them, and that the old version stays."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from tests.support.importing import Importer, Reader
from tests.support.mapping_files import encode, mapping, weather_keys, write


def good_json(first: int) -> bytes:
    return b"".join(b'{"user_id": "u%d", "contents": ["sun"]}\n' % i for i in range(first, first + 20))


@pytest.fixture(autouse=True)
async def old(importer: Importer, tmp_path: Path) -> None:
    await importer.import_mapping(write(tmp_path / "old.csv", mapping(1, "old")), "old")


@pytest.mark.parametrize(
    ("name", "body", "reason", "said"),
    [
        ("m.csv", b"", "empty_file", "m.csv is empty"),
        ("m.csv", b"\xef\xbb\xbf", "empty_file", "m.csv has no line with anything in it"),
        ("m.csv.gz", gzip.compress(b"", mtime=0), "empty_file", "m.csv.gz is empty"),
        ("m.csv", b"\n\r\n\n", "empty_file", "m.csv has no line with anything in it"),
        ("m.csv", b"7,sun|moon\n8,sun\n", "wrong_column", 'csv: {"columns": ["user_id"'),
        ("m.csv", b"user_id,contents\n", "empty_mapping", "no valid rows"),
        ("m.jsonl", b"", "empty_mapping", "no valid rows"),
        ("m.parquet", encode([], "parquet"), "empty_mapping", "no valid rows"),
        ("m.csv", b"user,contents\nu,sun\n", "wrong_column", "found user, contents"),
        ("m.csv", b"user_id,contents,color\nu,sun,red\n", "wrong_column", "'color' is unknown"),
        ("m.csv", b"user_id,contents,contents\nu,sun,sun\n", "wrong_column", "stands twice"),
        ("m.csv", b'user_id,"contents\nu,sun\n', "wrong_column", "header"),
        ("m.jsonl", b'{"user": "u", "contents": ["sun"]}\n', "wrong_column", "found user, contents"),
        ("m.parquet", b"PAR1 this is not", "unreadable_file", "is Parquet without its end"),
        ("m.csv.gz", b"\x1f\x8b\x08 broken", "unreadable_file", "cannot be read"),
        ("m.xml", b"<m/>", "unknown_format", ".parquet"),
        ("m.csv", b"user_id,contents\n" + b"u,sun,wind\n" * 2, "too_many_rejects", "2 of 2 rows"),
    ],
)
async def test_a_file_that_cannot_be_imported_fails_the_job_with_its_reason(
    importer: Importer, reader: Reader, tmp_path: Path, name: str, body: bytes, reason: str, said: str
) -> None:
    (tmp_path / name).write_bytes(body)

    job = await importer.import_mapping((tmp_path / name).as_uri())

    assert (job.state, job.error.reason) == (pb.IMPORT_STATE_FAILED, reason)
    assert said in job.error.message
    if reason != "too_many_rejects":
        assert job.error.file == (tmp_path / name).as_uri()
    assert await reader.candidates("u0") == weather_keys("old")


async def test_a_file_that_does_not_exist_is_named(importer: Importer, tmp_path: Path) -> None:
    uri = (tmp_path / "nothing.csv").as_uri()

    job = await importer.import_mapping(uri)

    assert (job.error.reason, job.error.file) == ("file_not_found", uri)


async def test_a_folder_without_parts_holds_no_file(importer: Importer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "_SUCCESS").touch()

    job = await importer.import_mapping((tmp_path / "empty").as_uri())

    assert job.error.reason == "file_not_found"


async def test_a_parquet_column_of_the_wrong_type_fails_the_job_before_a_row_is_written(
    importer: Importer, tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    write(folder / "part-0.parquet", mapping(30, "sun"))
    pq.write_table(pa.table({"user_id": [1.5], "contents": [["sun"]]}), folder / "part-1.parquet")

    job = await importer.import_mapping(folder.as_uri())

    assert (job.error.reason, job.error.column) == ("wrong_column", "user_id")
    assert "double" in job.error.message
    assert job.progress.rows == 0


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (b'{"contents": ["sun"]}', "user_id", "user_id_missing"),
        (b'{"user_id": "", "contents": ["sun"]}', "user_id", "user_id_missing"),
        (b'{"user_id": 7.5, "contents": ["sun"]}', "user_id", "user_id_not_text"),
        (b'{"user_id": "%s", "contents": ["sun"]}' % (b"x" * 129), "user_id", "user_id_too_long"),
        (b'{"user_id": "\\ud800", "contents": ["sun"]}', "user_id", "user_id_not_utf8"),
        (b'{"user_id": "b"}', "contents", "contents_missing"),
        (b'{"user_id": "b", "contents": "sun"}', "contents", "contents_not_a_list"),
        (b'{"user_id": "b", "contents": [true]}', "contents", "content_id_not_text"),
        (b'{"user_id": "b", "contents": ["sun", ""]}', "contents", "content_id_missing"),
        (b'{"user_id": "b", "contents": ["sun", null]}', "contents", "content_id_missing"),
        (b'{"user_id": "b", "contents": ["%s"]}' % ("ü".encode() * 129), "contents", "content_id_too_long"),
        (b'{"user_id": "b", "contents": ["1","2","3","4","5","6"]}', "contents", "too_many_candidates"),
        (b'{"user_id": "b", "contents": ["sun"], "scores": [1, 2]}', "scores", "scores_mismatch"),
        (b'{"user_id": "b", "contents": ["sun"], "scores": [NaN]}', "scores", "score_not_finite"),
        (b'{"user_id": "b", "contents": ["sun"], "scores": [1e999]}', "scores", "score_not_finite"),
        (b'{"user_id": "b", "contents": ["sun"], "scores": ["high"]}', "scores", "score_not_a_number"),
        (b'{"user_id": "b", "contents": ["sun"], "scores": 1}', "scores", "scores_not_a_list"),
        (b'{"user_id": "b", "contents": ["sun"], "color": 1}', "color", "wrong_column"),
        (b'{"user_id": "b", "conte', "", "broken_json"),
        (b"[1, 2]", "", "not_an_object"),
        (b'{"user_id": "b\xff", "contents": ["sun"]}', "", "not_utf8"),
    ],
)
async def test_a_broken_row_costs_that_row_alone(
    importer: Importer, reader: Reader, tmp_path: Path, line: bytes, column: str, reason: str
) -> None:
    (tmp_path / "m.jsonl").write_bytes(good_json(0) + line + b"\n" + good_json(20))

    job = await importer.import_mapping((tmp_path / "m.jsonl").as_uri())

    assert (job.state, job.progress.rows, job.progress.rejected_rows) == (pb.IMPORT_STATE_SUCCEEDED, 41, 1), job
    rejects = (tmp_path / "store" / "rejects" / f"{job.job_id}.jsonl").read_text()
    assert f'"row": 21, "column": "{column}", "reason": "{reason}"' in rejects
    assert await reader.candidates("u19") == weather_keys("sun")
    assert await reader.candidates("u20") == weather_keys("sun")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"b", "wrong_number_of_columns"),
        (b"b,sun,1,2", "wrong_number_of_columns"),
        (b'b,"sun,1', "open_quote"),
        (b'b,"sun" x,1"', "open_quote"),
        (b'b,"s"un,1', "broken_line"),
        (b"b,sun\rc,1", "stray_carriage_return"),
        (b"b,sun,high", "score_not_a_number"),
        (b"b,sun|wind,1", "scores_mismatch"),
        (b",sun,1", "user_id_missing"),
        (b"\xff,sun,1", "not_utf8"),
    ],
)
async def test_a_broken_csv_line_costs_that_line_alone(
    importer: Importer, reader: Reader, tmp_path: Path, line: bytes, reason: str
) -> None:
    lines = [b"user_id,contents,scores", *(b"u%d,sun,0.5" % i for i in range(20)), line, b"last,sun,0.5", b""]
    (tmp_path / "m.csv").write_bytes(b"\r\n".join(lines))

    job = await importer.import_mapping((tmp_path / "m.csv").as_uri())

    assert (job.state, job.progress.rows, job.progress.rejected_rows) == (pb.IMPORT_STATE_SUCCEEDED, 22, 1), job
    rejects = (tmp_path / "store" / "rejects" / f"{job.job_id}.jsonl").read_text()
    assert '"row": 22' in rejects
    assert f'"reason": "{reason}"' in rejects
    assert await reader.candidates("u19") == await reader.candidates("last") == weather_keys("sun")


async def test_a_job_that_fails_for_its_rejects_says_what_is_wrong_with_the_first(
    importer: Importer, tmp_path: Path
) -> None:
    row = "u,sun\nv," + "|".join(f"c{i}" for i in range(100_000)) + "\n"
    (tmp_path / "m.csv").write_text("user_id,contents\n" + row)

    job = await importer.import_mapping((tmp_path / "m.csv").as_uri())

    error = job.error
    assert (error.reason, error.row, error.column) == ("too_many_rejects", 3, "contents")
    assert error.file == (tmp_path / "m.csv").as_uri()
    assert "1 of 2 rows are broken" in error.message
    assert "; it reads {'user_id': '" in error.message
    assert "too_many_candidates (the row has more contents than importing.max_candidates)" in error.message


async def test_a_hopeless_parquet_file_is_given_up_before_its_end(importer: Importer, tmp_path: Path) -> None:
    rows = [{"user_id": "" if i < 1500 else f"u{i}", "contents": ["sun"]} for i in range(3000)]

    job = await importer.import_mapping(write(tmp_path / "m.parquet", rows))

    assert job.error.reason == "too_many_rejects"
    assert job.progress.rows < 1500


async def test_the_importer_lives_on_after_every_failure(importer: Importer, reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    await importer.import_mapping((tmp_path / "bad.parquet").as_uri(), "bad")

    job = await importer.import_mapping(write(tmp_path / "good.parquet", mapping(1, "sun")), "good")

    assert job.state == pb.IMPORT_STATE_SUCCEEDED
    assert await reader.candidates("u0") == weather_keys("sun")
