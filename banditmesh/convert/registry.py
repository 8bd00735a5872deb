"""The formats by name, and how a log of one of them becomes a decision log."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from banditmesh.convert import criteo, mind, movielens, obd, vw_dsjson, vw_text, yahoo_r6
from banditmesh.convert.log import Log
from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.row import parse
from banditmesh.output import output
from banditmesh.runtime.errors import InvalidArgument

Converter = Callable[[Log], Iterator[tuple[str, dict[str, Any]]]]
CONVERTERS: Mapping[str, Converter] = {
    "vw-dsjson": vw_dsjson.convert,
    "vw-text": vw_text.convert,
    "obd": obd.convert,
    "movielens": movielens.convert,
    "mind": mind.convert,
    "yahoo-r6": yahoo_r6.convert,
    "criteo": criteo.convert,
}


def convert(name: str, log: Log, out: Path) -> int:
    """Write a decision log, as JSON lines (gzipped when its name ends with .gz), and return how many rows it has.

    Every row is checked as ``replay`` checks it; what does not hold is counted in ``log.skipped`` too.

    Raises:
        NotFound: There is no such log.
        InvalidArgument: It is broken, or nothing of it could be converted; ``out`` stays as it was.
    """
    written = 0
    with _written(out) as file:
        for where, row in CONVERTERS[name](log):
            try:
                parse(row, 0, where)
            except BrokenRow as error:
                log.skip(f"not a decision: {error.message.removeprefix(where + ': ')} ({error.field})", where)
                continue
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            written += 1
        if not written:
            first = next(iter(log.skipped.items()), None)
            why = f"; the first: {first[1].first}: {first[0]}" if first else ": it is empty"
            raise InvalidArgument(f"nothing of {log.path} is {name}{why}", field="log", value=str(log.path))
    return written


@contextmanager
def _written(out: Path) -> Iterator[IO[bytes]]:
    with output(out, "OUT") as file:
        if out.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as zipped:
                yield zipped  # type: ignore[misc] # it is written to as any file
        else:
            yield file
