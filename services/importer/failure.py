"""Why an import fails, and why a row of it is rejected."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

RAW_CHARACTERS = 200
"""How much of a rejected row is kept: enough to recognise it."""
MESSAGE_CHARACTERS = 2000
"""Of what a job says: a header of a megabyte makes no job of megabytes, of which no list would fit into an answer."""


@dataclass(frozen=True)
class Failure:
    """Why a job failed: ``importer.v1.ImportError``.

    Attributes:
        reason: Short and countable: ``file_not_found``, ``unreadable_file``, ``unknown_format``, ``not_allowed``,
            ``source_unavailable``, ``source_changed``, ``wrong_column``, ``too_many_rejects``, ``too_few_rows``,
            ``empty_file``, ``empty_mapping``, ``empty_profiles``, ``provider_unavailable``, ``provider_failed``,
            ``superseded``, ``gave_up``, ``internal``.
        message: In words, with what to do.
        file: The file that broke; empty when it is none of the files.
        row: The row in that file, from 1; 0 when it is not about a row.
        column: The column; empty when it is not about a column.
    """

    reason: str
    message: str
    file: str = ""
    row: int = 0
    column: str = ""

    def __post_init__(self) -> None:
        _cut(self, message=MESSAGE_CHARACTERS, file=MESSAGE_CHARACTERS, column=RAW_CHARACTERS)


class ImportFailed(Exception):
    """The job cannot succeed as it is; the old version stays live."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


_STORE_AWAY = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SERVICE_UNAVAILABLE|SLOW_DOWN|REQUEST_TIMEOUT|INTERNAL_FAILURE)|HTTP status 5\d\d"
)
"""How pyarrow 26 says in an OSError that S3 was not there, in the middle of a file as well."""


def unread(uri: str, problem: str, error: BaseException) -> ImportFailed:
    """The failure of a job whose file could not be read: ``source_unavailable`` when its store is away, else
    ``unreadable_file`` with the problem that it has."""
    if isinstance(error, OSError) and _STORE_AWAY.search(str(error)):
        return ImportFailed(Failure("source_unavailable", f"{uri} cannot be read now: {error}", file=uri))
    return ImportFailed(Failure("unreadable_file", f"{uri} {problem}: {error}", file=uri))


@dataclass(frozen=True)
class Reject:
    """A row that was left out.

    Attributes:
        file: Where it stands.
        row: Its number in the file, from 1: the line of a text file (a CSV's header is line 1), the row of a Parquet
            file.
        column: Which column is wrong; empty when the row as a whole is.
        reason: Short and countable, such as ``user_id_missing``.
        raw: The beginning of what was read.
    """

    file: str
    row: int
    column: str
    reason: str
    raw: str

    def line(self) -> bytes:
        """Return the line of the rejects file, without its newline."""
        fields = {"file": self.file, "row": self.row, "column": self.column, "reason": self.reason, "raw": self.raw}
        return json.dumps(fields, ensure_ascii=False).encode(errors="replace")


@dataclass(frozen=True)
class JobWarning:
    """Something that is not as it should be and costs no row: ``importer.v1.ImportWarning``.

    Attributes:
        reason: Short and countable, such as ``duplicate_user``.
        message: The first case, in words.
        file: Where the first case stands; empty when it is about none of the files.
        row: The row in that file, from 1; 0 when it is not about a row.
        count: How many cases.
    """

    reason: str
    message: str
    file: str = ""
    row: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        _cut(self, message=MESSAGE_CHARACTERS, file=MESSAGE_CHARACTERS)


def _cut(said: Failure | JobWarning, **most: int) -> None:
    """Shorten texts that have more characters than that."""
    for name, characters in most.items():
        text: str = getattr(said, name)
        if len(text) > characters:
            object.__setattr__(said, name, text[: characters - 1] + "…")


def merged(before: Sequence[JobWarning], more: Iterable[JobWarning]) -> tuple[JobWarning, ...]:
    """Return one warning a reason, with the first case and the number of all."""
    found = {warning.reason: warning for warning in before}
    for warning in more:
        first = found.get(warning.reason)
        found[warning.reason] = replace(first, count=first.count + warning.count) if first else warning
    return tuple(found.values())


def shorten(raw: object) -> str:
    """Return at most :data:`RAW_CHARACTERS` of what was read."""
    if isinstance(raw, bytes):
        text = raw[: 4 * RAW_CHARACTERS].decode(errors="replace")
    else:
        text = raw if isinstance(raw, str) else repr(raw)
    text = text.encode(errors="replace").decode()
    return text if len(text) <= RAW_CHARACTERS else text[: RAW_CHARACTERS - 1] + "…"
