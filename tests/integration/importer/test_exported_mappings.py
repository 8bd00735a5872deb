"""Mappings as pandas, Spark, Hive, Trino and Excel write them: read as they are meant, or refused with what would be
right.
"""

from __future__ import annotations

import bz2
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from tests.support.importing import Importer, Reader, notified, warnings
from tests.support.mapping_files import gzip_of, parquet, put, weather_keys, zstd

ROWS = b"u1,sun|rain\nu2,wind\n"
CSV = b"user_id,contents\n" + ROWS
JSON = b'{"user_id": "u1", "contents": ["sun", "rain"]}\n{"user_id": "u2", "contents": ["wind"]}\n'


FOLDERS = {
    "spark": {
        "_SUCCESS": b"",
        "._SUCCESS.crc": b"crc",
        "_committed_123": b"{}",
        ".part-00000-x.snappy.parquet.crc": b"crc",
        "part-00000-x.snappy.parquet": parquet({"user_id": ["u1", "u2"], "contents": [["sun", "rain"], ["wind"]]}),
    },
    "spark, partitioned": {
        "_SUCCESS": b"",
        "country=jp/part-00000-x.c000.csv": CSV,
        "country=__HIVE_DEFAULT_PARTITION__/.part-00001.crc": b"crc",
        "country=__HIVE_DEFAULT_PARTITION__/part-00001-x.c000.csv": b"user_id,contents\nu3,sun\n",
        "_temporary/0/part-00002.csv": b"nonsense",
    },
    "hive": {"000000_0": parquet({"user_id": ["u1", "u2"], "contents": [["sun", "rain"], ["wind"]]}), "000001_0": b""},
    "hive, json": {"000000_0": JSON, "000001_0.gz": gzip_of(b'{"user_id": "u3", "contents": ["sun"]}\n')},
    "trino": {
        "dt=2026-11-22/20261122_101500_00012_x3k2p_d6c1e2f0-1c1e-4b1b-a1f2-1f0e8a": parquet(
            {"user_id": ["u1", "u2"], "contents": [["sun", "rain"], ["wind"]]}
        )
    },
    "an empty part": {"part-0.csv": CSV, "part-1.csv": b"", "part-2.csv.gz": gzip_of(b"")},
    "ndjson": {"m.ndjson": JSON},
    "tsv": {"m.tsv": CSV.replace(b",", b"\t")},
    "tsv.gz": {"m.tsv.gz": gzip_of(CSV.replace(b",", b"\t"))},
    "zst": {"m.csv.zst": zstd(CSV)},
    "bz2": {"m.jsonl.bz2": bz2.compress(JSON)},
    "several gzip members": {"m.csv.gz": gzip_of(CSV[:30]) + gzip_of(CSV[30:])},
    "byte order mark": {"m.csv": b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n")},
    "pandas' index": {"m.csv": b",user_id,contents\n0,u1,sun|rain\n1,u2,wind\n"},
    "pandas' index in parquet": {
        "m.parquet": parquet(
            {"user_id": ["u1", "u2"], "contents": [["sun", "rain"], ["wind"]], "__index_level_0__": [0, 1]}
        )
    },
    "white space": {"m.csv": b"user_id,contents\n u1 ,sun | rain\nu2\xe3\x80\x80,wind\n"},
    "binary": {
        "m.parquet": parquet(
            {"user_id": pa.array([b"u1", b"u2"]), "contents": pa.array([[b"sun", b"rain"], [b"wind"]])}
        )
    },
}


@pytest.mark.parametrize("folder", FOLDERS)
async def test_a_folder_is_read_as_its_writer_meant_it(
    importer: Importer, reader: Reader, tmp_path: Path, folder: str
) -> None:
    job = await notified(importer, put(tmp_path / "m", FOLDERS[folder]))

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert await reader.candidates("u1") == weather_keys("sun", "rain")
    assert await reader.candidates("u2") == weather_keys("wind")
    assert job.progress.rejected_rows == 0


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (parquet({"user_id": [1, 2], "contents": [[7, 8], [9]]}), "m.parquet"),
        (parquet({"user_id": pa.array([1, 2], pa.int32()), "contents": [["7", "8"], ["9"]]}), "m.parquet"),
        (
            parquet(
                {
                    "user_id": pa.array([Decimal(1), Decimal(2)], pa.decimal128(20, 0)),
                    "contents": pa.array([[Decimal(7), Decimal(8)], [Decimal(9)]], pa.list_(pa.decimal128(20, 0))),
                }
            ),
            "m.parquet",
        ),
        (b'{"user_id": 1, "contents": [7, "8"]}\n{"user_id": "2", "contents": [9]}\n', "m.jsonl"),
        (b"user_id,contents\n1,7|8\n2,9\n", "m.csv"),
    ],
)
async def test_numbers_are_ids_by_their_digits(
    importer: Importer, reader: Reader, tmp_path: Path, body: bytes, name: str
) -> None:
    job = await notified(importer, put(tmp_path / "m", {name: body}))

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert await reader.candidates("1") == weather_keys("7", "8")
    assert await reader.candidates("2") == weather_keys("9")


OPTIONS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "semicolons": (CSV.replace(b",", b";"), {"csv": {"delimiter": ";"}}),
    "another list separator": (CSV.replace(b"|", b" "), {"csv": {"list_separator": " "}}),
    "utf-16 of excel": (
        CSV.decode().replace(",", "\t").encode("utf-16"),
        {"csv": {"delimiter": "\t", "encoding": "utf-16"}},
    ),
    "utf-16le without a mark": (CSV.decode().encode("utf-16-le"), {"csv": {"encoding": "utf-16le"}}),
    "hive's text": (
        ROWS.replace(b",", b"\x01").replace(b"|", b"\x02"),
        {"csv": {"delimiter": "\x01", "list_separator": "\x02", "columns": ["user_id", "contents"]}},
    ),
    "no ending": (CSV, {"format": pb.FILE_FORMAT_CSV}),
    "gzip without an ending": (gzip_of(CSV), {"format": pb.FILE_FORMAT_CSV}),
}


@pytest.mark.parametrize("how", OPTIONS)
async def test_what_a_name_does_not_say_the_caller_says(
    importer: Importer, reader: Reader, tmp_path: Path, how: str
) -> None:
    body, options = OPTIONS[how]
    name = "000000_0" if "format" in options else "m.csv"

    job = await notified(importer, put(tmp_path / "m", {name: body}), **options)

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert await reader.candidates("u1") == weather_keys("sun", "rain")
    assert await reader.candidates("u2") == weather_keys("wind")


async def test_a_line_that_does_not_decode_costs_that_line_alone(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    body = b"user_id,contents\n" + "".join(f"u{i},雨\n" for i in range(9)).encode("cp932") + b"u9,\x81\nu10,sun\n"

    job = await notified(importer, put(tmp_path, {"m.csv": body}) + "/m.csv", csv={"encoding": "shift_jis"})

    assert (job.state, job.progress.rejected_rows) == (pb.IMPORT_STATE_SUCCEEDED, 1), job.error
    assert await reader.candidates("u8") == weather_keys("雨")
    assert await reader.candidates("u10") == weather_keys("sun")


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("m.csv", gzip_of(CSV), "is compressed by gzip: its name must end with .gz"),
        ("m.csv.gz", CSV, "is not compressed by gzip, though its name says so"),
        ("m.csv", CSV.decode().encode("utf-16"), "is UTF-16, as Excel's 'Unicode Text' is"),
        ("m.csv", "user_id,contents,größe\nu1,sun,1\n".encode("cp1252"), "the header is not in UTF-8: save the file"),
        ("m.csv", b"x" * (1 << 21) + b"\nu1,sun\n", "the first line is longer than 1 MiB"),
        ("m.csv", CSV.decode().encode("utf-16-le"), "is UTF-16"),
        ("m.jsonl", JSON.decode().encode("utf-16"), "is UTF-16"),
        ("m.csv", CSV.replace(b",", b";"), 'the columns are separated by \';\'; notify with csv: {"delimiter": ";"}'),
        ("m.csv", CSV.replace(b",", b"\t"), "the columns are separated by tabs"),
        ("m.csv", parquet({"user_id": ["u"]}), "is Parquet: its name must end with .parquet"),
        ("m.csv", b"PK\x03\x04xlsx", "is a ZIP archive or an Excel workbook, not CSV"),
        ("m.jsonl", b"[\n" + JSON + b"]\n", "is one JSON array; write one object a line"),
        ("m.parquet.gz", gzip_of(b"PAR1"), "Parquet compresses by itself"),
        ("000000_0", b"ORC", "is ORC; remove it, or write it as Parquet"),
        ("m.csv", b"sep=;\n" + CSV, "the first line is Excel's sep="),
        ("m.csv", CSV.replace(b"\n", b"\r"), "end with a carriage return alone"),
        ("m.csv.snappy", b"x", "none of the endings .parquet, .pq, .parq, .csv"),
        ("m.parquet", parquet({"user_id": [1.5], "contents": [["a"]]}), "'user_id' is double"),
        ("m.parquet", parquet({"user_id": ["u"], "contents": ["a|b"]}), "'contents' is string"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_its_cause(
    importer: Importer, tmp_path: Path, name: str, body: bytes, said: str
) -> None:
    uri = put(tmp_path / "m", {name: body}) + f"/{name}"

    job = await notified(importer, uri)

    assert (job.state, job.error.file) == (pb.IMPORT_STATE_FAILED, uri)
    assert said in job.error.message


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"csv": {"delimiter": ";;"}}, "csv.delimiter"),
        ({"csv": {"delimiter": "|"}}, "csv.list_separator"),
        ({"csv": {"encoding": "utf-9"}}, "csv.encoding"),
        ({"csv": {"encoding": "utf-" + "8" * 4_000_000}}, "csv.encoding"),
        ({"csv": {"escape": '"'}}, "csv.escape"),
        ({"csv": {"escape": ","}}, "csv.escape"),
        ({"csv": {"escape": "|"}}, "csv.escape"),
        ({"csv": {"columns": [""]}}, "csv.columns"),
        ({"format": pb.FILE_FORMAT_PARQUET, "csv": {"delimiter": ";"}}, "csv"),
        ({"format": 9}, "format"),
    ],
)
async def test_options_that_cannot_be_right_are_refused(
    importer: Importer, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await notified(importer, "file:///m.csv", **options)

    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    details = error.value.details() or ""
    assert f"field {field}" in details
    assert "8" * 100 not in details


async def test_line_breaks_inside_quotes_are_read_and_a_stray_quote_costs_its_line_alone(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    rows = [f'u{i},"he said ""a\n\nb"", {i}"\n' for i in range(50)]
    rows[20] = 'stray,"x\n'
    rows[30] = 'stray,"x\n'

    job = await notified(
        importer, put(tmp_path, {"p.csv": ("user_id,note\n" + "".join(rows)).encode()}) + "/p.csv", profiles=True
    )

    assert (job.state, job.progress.rows, job.progress.rejected_rows) == (pb.IMPORT_STATE_SUCCEEDED, 50, 2), job
    assert await reader.profile("u25") == {"note": 'he said "a\n\nb", 25'}
    assert await reader.profile("u49") == {"note": 'he said "a\n\nb", 49'}


async def test_what_costs_no_row_is_counted_and_named(importer: Importer, tmp_path: Path) -> None:
    lines = ["u1,sun", " u2 ,rain", "u1,wind", *(f"v{i},sun" for i in range(30)), "u2,snow", "u1,snow"]
    files = {
        "part-0.csv": "\n".join(["user_id,contents", *lines]).encode(),
        "part-1.csv": b"",
        "old/part-0.csv": b"nonsense",
    }

    job = await notified(importer, put(tmp_path / "m", files))

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert warnings(job) == {"duplicate_user": 3, "white_space_around_id": 1, "empty_file": 1, "subfolder_ignored": 1}
    twice = next(each for each in job.warnings if each.reason == "duplicate_user")
    assert (twice.file.endswith("part-0.csv"), twice.row) == (True, 4)
    assert importer.metric("warnings_total", kind="mapping", reason="duplicate_user") == 3


@pytest.mark.parametrize(
    ("marker", "called"), [("_delta_log/00000.json", "Delta Lake"), (".hoodie/hoodie.properties", "Hudi")]
)
async def test_the_folder_of_a_table_is_refused_because_it_holds_old_files_too(
    importer: Importer, tmp_path: Path, marker: str, called: str
) -> None:
    job = await notified(importer, put(tmp_path / "m", {marker: b"{}", "part-0.parquet": b""}))

    assert (job.error.reason, f"is a {called} table" in job.error.message) == ("unknown_format", True)


async def test_links_are_named_when_they_lead_nowhere_and_passed_over_when_hidden(
    importer: Importer, tmp_path: Path
) -> None:
    uri = put(tmp_path / "m", {"part-0.csv": CSV, "_temporary/part-1.csv": b"half"})
    (tmp_path / "m" / ".snapshot").symlink_to("nowhere")
    read = await notified(importer, uri)
    (tmp_path / "m" / "part-1.csv").symlink_to("nowhere")
    job = await notified(importer, uri, version="v2")

    assert (read.state, warnings(read)) == (pb.IMPORT_STATE_SUCCEEDED, {"unfinished_folder": 1})
    assert (job.error.reason, job.error.file) == ("unreadable_file", f"{uri}/part-1.csv")
    assert "leads nowhere" in job.error.message


async def test_the_same_version_in_another_format_is_refused(importer: Importer, tmp_path: Path) -> None:
    uri = put(tmp_path, {"m.csv": CSV}) + "/m.csv"
    await notified(importer, uri)

    with pytest.raises(grpc.aio.AioRpcError) as error:
        await notified(importer, uri, csv={"encoding": "cp1252"})

    assert error.value.code() == grpc.StatusCode.ALREADY_EXISTS


async def test_urls_are_content_ids(importer: Importer, reader: Reader, tmp_path: Path) -> None:
    url = "https://news.example.com/2026/11/22/" + "x" * 210
    rows = json.dumps({"user_id": "u1", "contents": [url]}).encode()

    job = await notified(importer, put(tmp_path, {"m.jsonl": rows}) + "/m.jsonl")

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert await reader.content(url) is not None
