"""Reading a decision log of any size: JSON lines (also gzipped) or Parquet, told apart by their first bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.row import Decision, parse
from banditmesh.runtime.errors import InvalidArgument, NotFound

ROWS_AT_ONCE = 256
CANDIDATES_AT_ONCE = 16_384
"""A batch ends with whichever is reached first, so that rows of 10 000 candidates do not fill the memory."""


def read(path: Path) -> Iterator[Decision]:
    """The decisions of a log, in its order, one at a time.

    Raises:
        NotFound: there is no such file.
        InvalidArgument: it cannot be read as what its first bytes say.
        BrokenRow: a row does not follow the format; the message starts with ``<path>:<line>``.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}", field="log", value=str(path)) from error
    return _parquet(path) if head == b"PAR1" else _json_lines(path, zipped=head[:2] == b"\x1f\x8b")


def batches(path: Path) -> Iterator[list[Decision]]:
    """The decisions of a log in lists that bound the memory whatever the file's size. Raises as `read` does."""
    batch: list[Decision] = []
    candidates = 0
    for decision in read(path):
        batch.append(decision)
        candidates += len(decision.candidates)
        if len(batch) == ROWS_AT_ONCE or candidates >= CANDIDATES_AT_ONCE:
            yield batch
            batch, candidates = [], 0
    if batch:
        yield batch


def _json_lines(path: Path, *, zipped: bool) -> Iterator[Decision]:
    line = 0
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            for line, raw in enumerate(file, start=1):
                if not raw.isspace():
                    where = f"{path}:{line}"
                    yield parse(_json(raw, where), line, where)
    except (gzip.BadGzipFile, EOFError) as error:
        raise InvalidArgument(f"{path} is broken after line {line}: {error}", field="log", value=str(path)) from error


def _json(raw: bytes, where: str) -> object:
    try:
        return json.loads(raw, parse_constant=lambda name: _refuse(where, name))
    except ValueError as error:
        raise BrokenRow(where, f"no JSON: {error}") from error


def _refuse(where: str, name: str) -> NoReturn:
    raise BrokenRow(where, f"{name} is no number of JSON")


def _parquet(path: Path) -> Iterator[Decision]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            line = 0
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                for row in batch.to_pylist(maps_as_pydicts="strict"):
                    line += 1
                    yield parse(row, line, f"{path}:{line}")
    except (pa.ArrowException, OSError) as error:
        raise InvalidArgument(f"{path} is no readable Parquet: {error}", field="log", value=str(path)) from error
