"""What can be known of a fit's logs from their first rows, before hours of work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from banditmesh.decisions.reader import batches
from banditmesh.decisions.row import Decision
from banditmesh.runtime.errors import InvalidArgument


def checked(log: Path, others: Sequence[Path]) -> list[str]:
    """Reads the first rows of the log and of those that it is measured on; returns what is odd, in sentences.

    Raises:
        BrokenRow, NotFound, InvalidArgument: as `decisions.reader.read` does; also for a log without rows, for a pipe,
            which cannot be read twice, and for a log that has not one field of the other's.
    """
    known = _fields(log)
    return [said for other in dict.fromkeys(others) if (said := _differences(log, known, other, _fields(other)))]


def _fields(log: Path) -> set[str]:
    if log.exists() and not log.is_file() and not log.is_dir():
        raise InvalidArgument(f"{log} is a pipe, and fit reads a log more than once", field="log", value=str(log))
    for rows in batches(log):
        return {name for row in rows for name in _names(row)}
    raise InvalidArgument(f"{log} has no rows", field="log", value=str(log))


def _names(row: Decision) -> set[str]:
    return {*row.context, *(name for each in row.features for name in each), *(["user"] if row.user else [])}


def _differences(log: Path, known: set[str], other: Path, there: set[str]) -> str | None:
    unknown, absent = sorted(there - known), sorted(known - there)
    if known and there and not known & there:
        raise InvalidArgument(
            f"{other} has the fields {_listed(unknown)}, and none of those of {log}: {_listed(absent)}",
            field="log",
            value=str(other),
        )
    found = [f"have {_listed(unknown)}, which those of {log} do not"] if unknown else []
    found += [f"lack {_listed(absent)} of {log}"] if absent else []
    return f"{other}: its first rows {'; they '.join(found)}" if found else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
