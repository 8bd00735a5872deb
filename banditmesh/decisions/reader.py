"""Reading a decision log of any size: JSON lines (also compressed) or Parquet, told apart by their first bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.row import Decision, parse
from banditmesh.decompression import BROKEN, decompressed, no_text
from banditmesh.duplicates import first_twice
from banditmesh.json_keys import Decoder
from banditmesh.runtime.errors import InvalidArgument, NotFound

ROWS_AT_ONCE = 256
CANDIDATES_AT_ONCE = 16_384
"""A batch ends with whichever is reached first, so that rows of 10 000 candidates do not fill the memory."""
_BUFFER_BYTES: Final = 1 << 17
_ARROW_ROWS: Final = 1024
_ROWS_TO_PYTHON: Final = 64
COLUMNS: Final = (
    "t",
    "user",
    "context",
    "candidates",
    "shown",
    "propensity",
    "reward",
    "reactions",
    "list",
    "position",
    "origin",
)
RULE_COLUMNS: Final = ("barred", "rules")
_FORMAT: Final = "a log is JSON lines, one object a line and no array around them, or Parquet: docs/decision-log.md"


def read(path: Path) -> Iterator[Decision]:
    """The decisions of a log, in its order, one at a time.

    Raises:
        NotFound: there is no such file.
        InvalidArgument: it cannot be read as what its first bytes say.
        BrokenRow: a row does not follow the format; the message starts with ``<path>:<line>``.
    """
    return LogFile(path).rows()


def batches(
    path: Path,
    told: Callable[[float], None] = lambda share: None,
    target: str | None = None,
    *,
    ruled: bool = False,
) -> Iterator[list[Decision]]:
    """The decisions of a log in lists that bound the memory whatever the file's size.

    Args:
        path: the file.
        told: before each list, which share of the file has been read.
        target: the column with another policy's probabilities (`decisions.target`); None: they are not read.
        ruled: whether what the placement's rules did is read (`decisions.rules`).

    Raises:
        NotFound, InvalidArgument, BrokenRow: as `read` does.
    """
    log = LogFile(path, target, ruled=ruled)
    return _batches(log, told)


def _batches(log: LogFile, told: Callable[[float], None]) -> Iterator[list[Decision]]:
    batch: list[Decision] = []
    candidates = 0
    for decision in log.rows():
        batch.append(decision)
        candidates += len(decision.ids)
        if len(batch) == ROWS_AT_ONCE or candidates >= CANDIDATES_AT_ONCE:
            told(log.share())
            yield batch
            batch, candidates = [], 0
    if batch:
        told(1.0)
        yield batch


class LogFile:
    """A log that is there. Raises as `read` does, as early as it can be known."""

    def __init__(self, path: Path, target: str | None = None, *, ruled: bool = False) -> None:
        try:
            self._bytes = path.stat().st_size
        except OSError as error:
            raise NotFound(f"{path} cannot be read: {error.strerror}", field="log", value=str(path)) from error
        if path.is_dir():
            raise InvalidArgument(f"{path} is a folder; a log is one file", field="log", value=str(path))
        self._path = path
        self._target = target
        self._ruled = ruled
        self._share: Callable[[], float] = float

    def share(self) -> float:
        """How much of the file has been read, from 0 to 1; 0 as long as its size is unknown, as that of a pipe."""
        return self._share()

    def rows(self) -> Iterator[Decision]:
        """The decisions, in their order."""
        try:
            file = io.BufferedReader(self._path.open("rb", buffering=0), _BUFFER_BYTES)
        except OSError as error:
            raise NotFound(
                f"{self._path} cannot be read: {error.strerror}", field="log", value=str(self._path)
            ) from error
        with file:
            head = file.peek(4)[:4]  # not read and opened again: a pipe can be read once
            if self._bytes and file.seekable():
                self._share = lambda: file.tell() / self._bytes
            if head == b"PAR1":
                yield from self._parquet(file)
            else:
                with decompressed(file) as plain:
                    yield from self._lines(plain)

    def _lines(self, file: IO[bytes]) -> Iterator[Decision]:
        name = str(self._path)
        line, decoder = 0, Decoder(_refuse)
        try:
            for line, raw in enumerate(file, start=1):
                if line == 1 and (what := no_text(raw)):
                    raise InvalidArgument(f"{name} {what}", field="log", value=name)
                if not raw.isspace():
                    where = f"{name}:{line}"
                    yield parse(_json(decoder, raw, where), line, where, self._target, ruled=self._ruled)
        except BROKEN as error:
            raise InvalidArgument(f"{name} is broken after line {line}: {error}", field="log", value=name) from error

    def _parquet(self, file: IO[bytes]) -> Iterator[Decision]:
        import pyarrow as pa
        from pyarrow import parquet

        from banditmesh.decisions.columns import values

        name = str(self._path)
        line = 0
        columns = [*COLUMNS, *([self._target] if self._target else []), *(RULE_COLUMNS if self._ruled else ())]
        try:
            with parquet.ParquetFile(file) as table:
                self._share = lambda: line / table.metadata.num_rows
                _demand_column(table.schema_arrow.names, name)
                _demand_plain([field for field in table.schema_arrow if field.name in columns], name)
                for batch in table.iter_batches(batch_size=_ARROW_ROWS, columns=columns):
                    whole = batch.to_struct_array()
                    for start in range(0, len(whole), _ROWS_TO_PYTHON):
                        for row in values(whole.slice(start, _ROWS_TO_PYTHON)):
                            line += 1
                            yield parse(row, line, f"{name}:{line}", self._target, ruled=self._ruled)
        except (pa.ArrowException, OSError) as error:
            raise InvalidArgument(f"{name} is no readable Parquet: {error}", field="log", value=name) from error


def _demand_plain(fields: list[Any], path: str) -> None:
    """Each column once, of a type that is what its values are."""
    from banditmesh.decisions.columns import foreign

    twice = first_twice([field.name for field in fields])
    if twice is not None:
        raise InvalidArgument(f"{path}: the column {twice} stands twice", field="log", value=path)
    for column, kind in filter(None, map(foreign, fields)):
        raise InvalidArgument(
            f"{path}: the column {column} has a type that its writer alone knows, {kind}",
            field="log",
            value=path,
            hint="write it as text, in pandas by .astype(str)",
        )


def _demand_column(names: list[str], path: str) -> None:
    if "candidates" not in names:
        raise InvalidArgument(
            f"{path} has no column candidates, but {', '.join(names[:16]) or 'none'}",
            field="log",
            value=path,
            hint=_FORMAT,
        )


class _NoNumber(ValueError):
    """NaN or an infinity, which Python's reader would take."""


def _refuse(name: str) -> NoReturn:
    raise _NoNumber(f"{name} is no number of JSON")


def _json(decoder: Decoder, raw: bytes, where: str) -> Any:
    try:
        text = raw.decode().strip("\ufeff \t\r\n")  # the first: a byte order mark, as Windows writes one
        row, end = decoder.raw_decode(text)
    except _NoNumber as error:
        raise BrokenRow(where, str(error)) from error
    except json.JSONDecodeError as error:
        raise BrokenRow(where, f"no JSON: {error.msg} at character {error.pos + 1}; {_FORMAT}") from error
    except (ValueError, RecursionError) as error:
        raise BrokenRow(where, f"no JSON: {error}; {_FORMAT}") from error
    if end != len(text):
        raise BrokenRow(where, f"no JSON: one object ends at character {end}, and more follows; {_FORMAT}")
    if decoder.twice is not None:
        raise BrokenRow(where, "a key stands twice in an object; write each once", value=decoder.twice)
    if b"\\ud" in raw or b"\\uD" in raw:
        _demand_text(row, where)
    return row


def _demand_text(row: object, where: str) -> None:
    """Half of a surrogate pair can be written in JSON, but is no character, and has no key."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        wrong = error.object[error.start]
        raise BrokenRow(where, f"{wrong!r} is half of a surrogate pair, no character") from error
