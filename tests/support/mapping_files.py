"""Mapping and profile files for tests, in every format."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from banditmesh.bandits.hashing import content_key

Row = Mapping[str, Any]


def weather_keys(*content_ids: str) -> list[int]:
    return [content_key("weather", content_id) for content_id in content_ids]


def encode(rows: Sequence[Row], ending: str) -> bytes:
    """Return the bytes of a mapping or profiles file; ``ending`` is parquet, csv, jsonl or one of these with .gz."""
    if ending.endswith(".gz"):
        return gzip.compress(encode(rows, ending.removesuffix(".gz")))
    names = list(rows[0]) if rows else ["user_id", "contents"]
    if ending == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if ending == "csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(names)
        for row in rows:
            writer.writerow(["|".join(map(str, value)) if isinstance(value, list) else value for value in row.values()])
        return text.getvalue().encode()
    sink = pa.BufferOutputStream()
    schema = pa.schema([("user_id", pa.string()), ("contents", pa.list_(pa.string()))])
    table = pa.table({name: [row[name] for row in rows] for name in names}) if rows else schema.empty_table()
    pq.write_table(table, sink, row_group_size=50)
    return sink.getvalue().to_pybytes()


def write(path: Path, rows: Sequence[Row]) -> str:
    """Write a file in the format of its ending and return its URI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(rows, path.name.split(".", 1)[1]))
    return path.as_uri()


def mapping(users: int, *contents: str) -> list[Row]:
    """Return rows of so many users, all with these contents."""
    return [{"user_id": f"u{i}", "contents": list(contents)} for i in range(users)]


def gzip_of(body: bytes) -> bytes:
    """The same bytes whenever it is called: names of tests must not depend on the time."""
    return gzip.compress(body, mtime=0)


def zstd(body: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(body)
    return sink.getvalue().to_pybytes()


def parquet(table: Mapping[str, Any] | pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(dict(table)), sink)
    return sink.getvalue().to_pybytes()


def put(folder: Path, files: Mapping[str, bytes]) -> str:
    """Write files into a folder and return its URI."""
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder.as_uri()
