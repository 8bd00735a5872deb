"""Files that are not what their names say, or no mapping: each refusal says what it is, and what would be right."""

from __future__ import annotations

import io
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pytest
from pyarrow import feather, orc

from services.importer.failure import ImportFailed
from services.importer.mapping import MappingPacker
from services.importer.reading import Source
from services.importer.rows import Packed
from services.importer.sources.allowed import AllowedUris
from services.importer.sources.filesystems import S3Access
from services.importer.sources.formats import FileOptions
from services.importer.sources.places import FileAccess
from tests.support.mapping_files import gzip_of, parquet

TABLE = pa.table({"user_id": ["u1"], "contents": [["sun"]]})
CSV = b"user_id,contents\nu1,sun\n"
JSON = b'{"user_id": "u1", "contents": ["sun"]}'
ORC, FEATHER, STREAM = io.BytesIO(), io.BytesIO(), io.BytesIO()
orc.write_table(TABLE, ORC)
feather.write_feather(TABLE, FEATHER)
with pa.ipc.new_stream(STREAM, TABLE.schema) as writer:
    writer.write_table(TABLE)
WHOLE = parquet(TABLE)
STRANGE_FOOTER = WHOLE[:-90] + bytes(82) + WHOLE[-8:]
FILES = {"ORC": ORC.getvalue(), "Feather": FEATHER.getvalue(), "stream": STREAM.getvalue(), "Avro": b"Obj\x01\x04"}


def foreign(users: pa.Array, extension: str) -> pa.Table:
    """A mapping whose users have a type that nobody here knows."""
    field = pa.field("user_id", users.type, metadata={"ARROW:extension:name": extension})
    lists = pa.array([["sun"]] * len(users))
    return pa.table([users, lists], pa.schema([field, pa.field("contents", lists.type)]))


def written(path: Path, body: bytes) -> str:
    path.write_bytes(body)
    return path.as_uri()


async def users_of(path: Path, body: bytes) -> list[str]:
    """Read a file as an import does; its users."""
    return [user for batch in await packed(path, body) for user in batch.users]


async def packed(path: Path, body: bytes) -> list[Packed]:
    """Read a file as an import does."""
    uri = written(path, body)
    packer = MappingPacker("weather", version=1, max_candidates=10)
    access = FileAccess(S3Access("", ""), AllowedUris(["file:///"]))
    source = await Source.open(uri, FileOptions(), access)
    found: list[Packed] = []
    for part in source.parts:
        async with source.read(part, packer, after_row=0, batch_rows=10) as batches:
            async for batch in batches:
                found.append(batch)
    return found


async def problem_of(path: Path, body: bytes) -> str:
    """Why a file is refused."""
    with pytest.raises(ImportFailed) as error:
        await users_of(path, body)
    return str(error.value)


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl", "m.data", "000000_0"])
async def test_a_file_of_another_format_is_named_whatever_it_is_called(tmp_path: Path, what: str, name: str) -> None:
    problem = await problem_of(tmp_path / name, FILES[what])

    assert what in problem
    assert "arquet, CSV or JSON lines" in problem


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("m.parquet", b"", "is empty, not Parquet"),
        ("m.parquet", CSV, "is a text, not Parquet"),
        ("m.parquet", JSON, "is JSON, not Parquet"),
        ("m.parquet", gzip_of(CSV), "is compressed by gzip, not Parquet"),
        ("m.parquet", parquet(TABLE)[:-9], "is Parquet without its end"),
        ("m.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a pointer of Git LFS"),
        ("m.parquet", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        ("m.csv", b"<!DOCTYPE html><html>Sign in</html>", "an HTML page, not CSV"),
        ("m.csv", JSON, "is JSON, not CSV"),
        ("m.csv.tar.gz", gzip_of(b"m.csv" + bytes(100) + b"0000644"), "is binary"),
        ("m.parquet.gzip", parquet(TABLE), "is Parquet: its name must end with .parquet"),
        ("m.csv.xz", b"\xfd7zXZ\x00", "is compressed by xz"),
        ("m.txt", CSV, "it is a text; rename"),
        ("m.json", b"[" + JSON + b"," + JSON + b"]", 'to_json(orient="records", lines=True)'),
        ("m.json", b" [\n  " + JSON + b"\n]", 'to_json(orient="records", lines=True)'),
        ("m.json", b"[" + b",".join([JSON] * 30_000) + b"]", "is one JSON array"),
        ("m.json", b'{"user_id":{"0":"u1"},"contents":{"0":["sun"]}}', "is one object of columns"),
        ("m.csv", b"user_id,contents,,\nu1,sun,,\n", "column 3 has no name in the header"),
        ("m.parquet", parquet({"user_id": [1.0], "contents": [["a"]]}), "write them as Int64 or text"),
        ("m.parquet", parquet({"user_id": [1], "contents": [[7.0]]}), "write them as Int64 or text"),
        ("m.parquet", parquet(foreign(pa.array([672]), "pandas.period")), "a pandas.period means is known to its"),
        ("m.parquet", parquet({"user_id": ["u"], "contents": [[{"id": "a"}]]}), "; write the ids alone"),
        ("m.parquet", parquet({"user_id": pa.array([bytes(16)], pa.binary(16)), "contents": [["a"]]}), "; write it as"),
        ("m.parquet", STRANGE_FOOTER, "has types that are not read: write text"),
    ],
)
async def test_what_a_file_is_instead_is_said(tmp_path: Path, name: str, body: bytes, said: str) -> None:
    assert said in await problem_of(tmp_path / name, body)


@pytest.mark.parametrize("name", ["m.pq", "m.parq", "M.PARQUET"])
async def test_parquet_has_short_names_too(tmp_path: Path, name: str) -> None:
    assert await users_of(tmp_path / name, parquet(TABLE)) == ["u1"]


async def test_uuids_are_the_texts_that_everybody_writes(tmp_path: Path) -> None:
    one, other = UUID(int=1), UUID(int=2)
    ids = pa.array([one.bytes, other.bytes], pa.uuid())
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 2], pa.int32()), ids)

    batches = await packed(tmp_path / "m.parquet", parquet(pa.table({"user_id": ids, "contents": lists})))

    assert [user for batch in batches for user in batch.users] == [str(one), str(other)]
    assert [content for batch in batches for content in batch.fresh_contents] == [str(one), str(other)]


async def test_a_file_all_of_whose_lists_are_empty_has_rows_without_contents(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["u1"], "contents": pa.array([[]], pa.list_(pa.null()))})
    assert await users_of(tmp_path / "m.parquet", parquet(table)) == ["u1"]


async def test_markers_of_hadoop_and_spark_are_neither_files_nor_warnings(tmp_path: Path) -> None:
    for name in ("_SUCCESS", "sub_$folder$", ".m.csv.crc", "_committed_1"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "m.csv").write_bytes(CSV)
    access = FileAccess(S3Access("", ""), AllowedUris(["file:///"]))

    source = await Source.open(tmp_path.as_uri(), FileOptions(), access)

    assert [part.name for part in source.parts] == [str(tmp_path / "m.csv")]
    assert list(source.warnings) == []
