"""Lines, parts and resuming in the middle, without a server."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from banditmesh.runtime.addresses import FileAddress, S3Address
from banditmesh.runtime.errors import InvalidArgument
from services.importer.failure import Failure, ImportFailed, JobWarning
from services.importer.sources.allowed import AllowedUris
from services.importer.sources.files import LocalFiles
from services.importer.sources.filesystems import S3Access, parse_uri
from services.importer.sources.formats import CsvOptions, FileOptions
from services.importer.sources.lines import MAX_LINE_BYTES, read_lines
from services.importer.sources.parquet import ParquetPart
from services.importer.sources.parts import Part, digest, list_parts
from services.importer.sources.records import TextBatch
from services.importer.sources.text import read_text


def any_columns(names: Sequence[str], file: str) -> None:
    """Accepts every file."""


def lines_of(body: bytes, most: int = 1000) -> list[tuple[int, bytes | None]]:
    return [(first + i, line) for first, lines in read_lines(io.BytesIO(body), most) for i, line in enumerate(lines)]


@given(st.lists(st.binary(max_size=6).filter(lambda line: not set(line) & set(b"\r\n"))), st.integers(1, 4))
@example([b"a", b"\xef\xbb\xbfb"], 1)
def test_lines_come_back_as_they_were_written_with_their_numbers(lines: list[bytes], most: int) -> None:
    assume(not (lines and lines[0].startswith(b"\xef\xbb\xbf")))  # a byte order mark is no part of the first line
    body = b"".join(line + b"\n" for line in lines)

    assert lines_of(body, most) == [(number, line) for number, line in enumerate(lines, 1)]


@pytest.mark.parametrize("body", [b"a\r\nb\r\n", b"a\nb", b"\xef\xbb\xbfa\nb\n"])
def test_line_ends_and_byte_order_marks_are_no_part_of_a_line(body: bytes) -> None:
    assert lines_of(body) == [(1, b"a"), (2, b"b")]


def test_an_endless_line_is_skipped_without_being_kept() -> None:
    body = b"a\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nb\n"

    assert lines_of(body) == [(1, b"a"), (2, None), (3, b"b")]


def text_rows(format_: str, body: bytes, *, after_row: int, batch_rows: int) -> list[tuple[int, str]]:
    part = Part("m", "file:///m", format_, len(body))  # type: ignore[arg-type]
    batches: list[TextBatch] = list(
        read_text(io.BytesIO(body), part, any_columns, CsvOptions(), after_row=after_row, batch_rows=batch_rows)
    )
    return [
        (row, record["user_id"]) for batch in batches for row, record in zip(batch.rows, batch.records, strict=True)
    ]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"user_id": "a", "contents": ["x"], "contents": ["y"]}', "contents"),
        ('{"user_id": "a", "user_id": "b", "contents": ["x"]}', "user_id"),
        ('{"user_id": "a", "tags": {"k": 1, "k": 2}}', "k"),
    ],
)
def test_a_key_that_stands_twice_in_an_object_costs_its_line(line: str, key: str) -> None:
    body = f'{line}\n{{"user_id": "c", "contents": ["z"]}}\n'.encode()
    part = Part("m", "file:///m", "jsonl", len(body))

    (batch,) = read_text(io.BytesIO(body), part, any_columns, CsvOptions(), after_row=0, batch_rows=9)

    assert [(each.row, each.column, each.reason) for each in batch.rejects] == [(1, key, "key_twice")]
    assert batch.rejects[0].raw == line
    assert [(row, record["user_id"]) for row, record in zip(batch.rows, batch.records, strict=True)] == [(2, "c")]


@pytest.mark.parametrize("after_row", range(9))
@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_a_resumed_text_file_goes_on_behind_its_row_wherever_the_batches_lie(after_row: int, batch_rows: int) -> None:
    csv = b"user_id\n" + b"".join(b"u%d\n" % row for row in range(2, 8))
    json_lines = b"".join(b'{"user_id": "u%d"}\n' % row for row in range(1, 8))

    assert text_rows("csv", csv, after_row=after_row, batch_rows=batch_rows) == [
        (row, f"u{row}") for row in range(max(after_row + 1, 2), 8)
    ]
    assert text_rows("jsonl", json_lines, after_row=after_row, batch_rows=batch_rows) == [
        (row, f"u{row}") for row in range(after_row + 1, 8)
    ]


@pytest.mark.parametrize("blank", ["", ",", ",,", '"",""'])
def test_a_line_of_separators_alone_is_a_blank_one_as_excel_writes_it(blank: str) -> None:
    body = f"user_id,contents\nu2,a\n{blank}\nu4,b\n{blank}\n".encode()

    assert text_rows("csv", body, after_row=0, batch_rows=9) == [(2, "u2"), (4, "u4")]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 5, 100])
def test_a_csv_with_line_breaks_in_quotes_goes_on_behind_every_checkpoint(batch_rows: int) -> None:
    body = b'user_id,note\n"a","1\n\n2"\nb,x\n"c","""3"\n"d\n","4\n5\n6\n"\n\nstray,"\ne,7\n"f","8\n9"'
    part = Part("m", "file:///m", "csv", len(body))

    def read(after_row: int) -> list[TextBatch]:
        return list(
            read_text(io.BytesIO(body), part, any_columns, CsvOptions(), after_row=after_row, batch_rows=batch_rows)
        )

    def users(batches: list[TextBatch]) -> list[str]:
        return [record["user_id"] for batch in batches for record in batch.records]

    batches = read(0)

    assert users(batches) == ["a", "b", "c", "d\n", "e", "f"]
    assert [(each.row, each.reason) for batch in batches for each in batch.rejects] == [(13, "open_quote")]
    for i, batch in enumerate(batches):
        assert users(read(batch.last_row)) == users(batches[i + 1 :])


@pytest.mark.parametrize("after_row", [0, 1, 3, 4, 5, 9, 10])
def test_a_resumed_parquet_file_goes_on_behind_its_row(tmp_path: Path, after_row: int) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"user_id": [f"u{row}" for row in range(1, 11)]}), path, row_group_size=4)
    part = Part(str(path), path.as_uri(), "parquet", 0)

    with pa.OSFile(str(path)) as file:
        batches = list(ParquetPart(file, part).read(after_row=after_row, batch_rows=3))

    rows = [int(row) for batch in batches for row in batch.rows]
    users = [user for batch in batches for user in batch.columns.column("user_id").to_pylist()]
    assert rows == list(range(after_row + 1, 11))
    assert users == [f"u{row}" for row in rows]
    assert not batches or batches[-1].last_row == 10


def parts_of(folder: Path) -> list[Part]:
    location = parse_uri(folder.as_uri())
    return list_parts(LocalFiles(AllowedUris([folder.as_uri()]), location.uri), location, FileOptions()).parts


def test_parts_are_sorted_as_people_count(tmp_path: Path) -> None:
    for name in ("part-10.csv", "part-9.csv", "part-1.parquet", "a.jsonl", "_SUCCESS", ".x.crc"):
        (tmp_path / name).touch()

    parts = parts_of(tmp_path)

    assert [Path(part.name).name for part in parts] == ["a.jsonl", "part-1.parquet", "part-9.csv", "part-10.csv"]


def test_the_digest_of_parts_changes_with_a_size(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"a")
    before = digest(parts_of(tmp_path))
    (tmp_path / "m.csv").write_bytes(b"ab")

    assert digest(parts_of(tmp_path)) != before


def test_a_folder_with_a_file_of_another_format_is_refused_rather_than_read_in_part(tmp_path: Path) -> None:
    (tmp_path / "part-0.csv").touch()
    (tmp_path / "part-1.orc").touch()

    with pytest.raises(ImportFailed) as failed:
        parts_of(tmp_path)

    assert failed.value.failure.reason == "unknown_format"
    assert failed.value.failure.file.endswith("part-1.orc")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///data/m.csv", "/data/m.csv"),
        ("s3://bucket/a%20b/m.csv", "bucket/a b/m.csv"),
        ("hdfs://namenode:8020/data/", "/data"),
    ],
)
def test_a_uri_names_a_file_of_its_file_system(uri: str, name: str) -> None:
    assert parse_uri(uri).name == name


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "m.csv",
        "ftp://h/m",
        "file://host/m",
        "s3://bucket",
        "hdfs://h:1/",
        "s3://b/m?x=1",
        "hdfs://h:x/m",
        "file:///a\nb",
    ],
)
def test_what_is_no_uri_of_ours_is_refused(uri: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        parse_uri(uri)

    assert error.value.field == "uri"


def test_s3_is_reached_as_the_store_is_or_as_the_environment_says() -> None:
    environ = {"AWS_ENDPOINT_URL": "http://elsewhere:1", "AWS_REGION": "eu-west-1"}

    assert S3Access.of(S3Address("b", "", "http://here:1", "us-east-1"), environ) == S3Access(
        "http://here:1", "us-east-1"
    )
    assert S3Access.of(FileAddress(Path("/")), environ) == S3Access("http://elsewhere:1", "eu-west-1")
    assert S3Access.of(FileAddress(Path("/")), {}) == S3Access(None, "us-east-1")


def test_a_header_of_very_many_columns_is_read_in_one_walk_and_little_is_said_of_it() -> None:
    names = [f"{'c' * 40}{number}" for number in range(20_000)]
    body = ",".join(["user_id", *names, names[-1]]).encode() + b"\nu1\n"
    part = Part("m", "file:///m", "csv", len(body))

    with pytest.raises(ImportFailed, match="stands twice in the header") as failed:
        list(read_text(io.BytesIO(body), part, any_columns, CsvOptions(), after_row=0, batch_rows=9))
    assert failed.value.failure.column == names[-1]


def test_what_a_failure_says_is_bounded() -> None:
    failure = Failure("wrong_column", "m" * 1_000_000, file="f" * 1_000_000, column="c" * 1_000_000)
    assert len(failure.message) + len(failure.file) + len(failure.column) < 5000
    warning = JobWarning("duplicate_user", "m" * 1_000_000)
    assert len(warning.message) <= 2000
