"""Archived rows as a decision log in one file, for `banditmesh replay` and `fit`, and for whoever wants to count.

Of an example there is one candidate, what was shown; its features have been hashed, so their names are `#` and the id
(`banditmesh.decisions.features`). Beside what a decision log has, each row says all that the archive knows: placement,
variant, model, outcome and so on.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Protocol

import pyarrow as pa
from pyarrow import parquet

from banditmesh.archive.layout import Kind, folder_of
from banditmesh.archive.reader import read
from banditmesh.output import output
from banditmesh.runtime.errors import InvalidArgument
from banditmesh.runtime.store import Store

SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".parquet")
_SAID: Final = ("variant", "model", "model_version", "position", "origin", "outcome", "target", "reactions")
_FEATURES: Final = pa.map_(pa.string(), pa.float32())
_SCHEMA: Final = pa.schema(
    [
        ("t", pa.float64()),
        ("user", pa.string()),
        (
            "candidates",
            pa.list_(
                pa.struct(
                    [("id", pa.string()), ("service", pa.string()), ("logic", pa.string()), ("features", _FEATURES)]
                )
            ),
        ),
        ("shown", pa.int32()),
        ("propensity", pa.float64()),
        ("reward", pa.float64()),
        ("placement", pa.string()),
        ("variant", pa.string()),
        ("model", pa.string()),
        ("model_version", pa.int64()),
        ("position", pa.int32()),
        ("origin", pa.string()),
        ("outcome", pa.string()),
        ("target", pa.string()),
        ("reactions", pa.list_(pa.string())),
        ("impression_id", pa.string()),
    ]
)


class Writer(Protocol):
    """Where rows go."""

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append rows."""
        ...


async def placements(store: Store, kind: Kind) -> list[str]:
    """Whose rows the archive has."""
    found = {folder.placement async for key in store.list(f"archive/{kind}/") if (folder := folder_of(key))}
    return sorted(found)


async def rows(
    store: Store, kind: Kind, placement: str, start: datetime, end: datetime
) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows of a decision log, some at a time. Raises as `reader.read`."""
    async for batch in read(store, placement, start, end, kind=kind):
        given = batch.to_pylist()
        yield (
            [of_example(row, placement) for row in given]
            if kind == "examples"
            else [_of_decision(row, placement) for row in given]
        )


def of_example(row: Mapping[str, Any], placement: str) -> dict[str, Any]:
    """The row of an example."""
    values = row["feature_values"] or [1.0] * len(row["feature_ids"])
    features = {f"#{each}": value for each, value in zip(row["feature_ids"], values, strict=True)}
    return {
        "t": row["impression_time"].timestamp(),
        "user": row["user"],
        "candidates": [{"id": row["content"], "service": row["service"], "logic": row["logic"], "features": features}],
        "shown": 0,
        "propensity": row["propensity"],
        "reward": row["reward"],
        "placement": placement,
        **{name: row[name] for name in _SAID},
        "impression_id": row["impression_id"].hex(),
    }


def _of_decision(row: Mapping[str, Any], placement: str) -> dict[str, Any]:
    return {
        **{
            name: _plain(value) for name, value in row.items() if value is not None and not name.startswith("decision_")
        },
        "placement": placement,
    }


def _plain(value: Any) -> Any:
    """As JSON has it; what is not there is left out."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if each is not None}
    return [_plain(each) for each in value] if isinstance(value, list) else value


@contextmanager
def written(path: Path, kind: Kind) -> Iterator[Writer]:
    """A file that is there once it is whole; its suffix says what it is.

    Raises InvalidArgument for another suffix, and for decisions as Parquet: their features differ from placement to
    placement, and `archive/decisions` has them as Parquet already.
    """
    allowed = SUFFIXES if kind == "examples" else SUFFIXES[:2]
    if not path.name.endswith(allowed):
        raise InvalidArgument(f"must end in {', '.join(allowed)}", field="OUT", value=str(path))
    with output(path, "OUT") as file:
        if path.name.endswith(".parquet"):
            with parquet.ParquetWriter(file, _SCHEMA, compression="zstd") as table:
                yield _Table(table)
        elif path.name.endswith(".gz"):
            with gzip.open(file, "wb", compresslevel=5) as zipped:
                yield _Lines(zipped)  # type: ignore[arg-type]
        else:
            yield _Lines(file)


class _Lines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            text = json.dumps({name: value for name, value in row.items() if value is not None}, ensure_ascii=False)
            self._file.write(text.encode() + b"\n")


class _Table:
    def __init__(self, table: parquet.ParquetWriter) -> None:
        self._table = table

    def write(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._table.write_table(pa.Table.from_pylist(rows, _SCHEMA))
