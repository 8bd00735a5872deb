"""The columns of a mapping's rows, whatever file they come from: user ids, lists of content ids, lists of scores.

Ids are texts; whole numbers are read as their digits, so that 7 and "7" are one user. White space around an id is
dropped, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.importer.failure import Reject, shorten
from services.importer.rows import USER_ID, id_problem, text_of_number, trimmed
from services.importer.sources.records import ArrowBatch, Batch, Record, TextBatch
from services.importer.spoiled import in_brackets

CONTENTS = "contents"
SCORES = "scores"
COLUMNS = (USER_ID, CONTENTS, SCORES)

Problem = tuple[str, str]
"""Column and reason."""
_KNOWN = frozenset(COLUMNS)
_USERS, _LISTS, _NUMBERS = pa.string(), pa.list_(pa.string()), pa.list_(pa.float64())


@dataclass(frozen=True)
class MappingRows:
    """Rows whose values have the right types; nothing else of them has been checked.

    Attributes:
        users: ``string[n]``.
        contents: ``list<string>[n]``.
        scores: ``list<double>[n]``; None: the file has none.
        rows: ``int64[n]``, their numbers in the file.
        rejects: Rows with values of other types.
        trimmed: ``bool[n]``, rows in which an id had white space around it.
    """

    users: pa.Array
    contents: pa.Array
    scores: pa.Array | None
    rows: NDArray[np.int64]
    rejects: list[Reject]
    trimmed: NDArray[np.bool_]


def mapping_rows(batch: Batch, list_separator: str) -> MappingRows:
    """Return the rows of a batch."""
    rejects: list[Reject]
    if isinstance(batch, ArrowBatch):
        (users, contents, scores), rows, rejects = _from_arrow(batch.columns), batch.rows, []
    else:
        (users, contents, scores), rows, rejects = _from_text(batch, list_separator)
    users, users_trimmed = trimmed(users)
    ids, ids_trimmed = trimmed(contents.flatten())
    if ids_trimmed.any():
        counts = list_counts(contents)
        users_trimmed[np.repeat(np.arange(len(counts)), counts)[ids_trimmed]] = True
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        contents = pa.ListArray.from_arrays(offsets, ids, mask=pc.is_null(contents))
    return MappingRows(users, contents, scores, rows, rejects, users_trimmed)


def list_counts(lists: pa.Array) -> NDArray[np.int64]:
    """``int64[n]``, the length of each list; 0 for a null."""
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)


def _from_arrow(columns: pa.RecordBatch) -> tuple[pa.Array, pa.Array, pa.Array | None]:
    # Not "safe": what is not UTF-8 is found and rejected row by row, later.
    users = columns.column(USER_ID).cast(_USERS, safe=False)
    contents = columns.column(CONTENTS).cast(_LISTS, safe=False)
    scores = columns.column(SCORES).cast(_NUMBERS, safe=False) if SCORES in columns.schema.names else None
    return users, contents, scores


def _from_text(
    batch: TextBatch, list_separator: str
) -> tuple[tuple[pa.Array, pa.Array, pa.Array | None], NDArray[np.int64], list[Reject]]:
    rejects = list(batch.rejects)
    rows, records = np.array(batch.rows, np.int64), list(batch.records)
    if batch.part.format == "csv":
        records = [_split(record, list_separator) for record in records]
    try:
        return _arrays(records), rows, rejects
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        # Some value is not of its column's type; only then is it worth going through them one by one.
        kept = []
        for i, record in enumerate(records):
            records[i] = record = {name: _with_texts(name, value) for name, value in record.items()}
            if problem := _type_problem(record):
                rejects.append(Reject(batch.part.uri, int(rows[i]), *problem, shorten(record)))
            else:
                kept.append(i)
        return _arrays([records[i] for i in kept]), rows[kept], rejects


def _arrays(records: Sequence[Record]) -> tuple[pa.Array, pa.Array, pa.Array | None]:
    if any(not record.keys() <= _KNOWN for record in records):
        raise ValueError("a record has an unknown column")
    users = pa.array([record.get(USER_ID) for record in records], _USERS)
    contents = [record.get(CONTENTS) for record in records]
    scores = [record.get(SCORES) for record in records]
    # Arrow would take a text for the list of its characters.
    if not all(type(given) is list or given is None for column in (contents, scores) for given in column):
        raise TypeError("not a list")
    has_scores = any(given is not None for given in scores)
    return users, pa.array(contents, _LISTS), pa.array(scores, _NUMBERS) if has_scores else None


def _split(record: Record, separator: str) -> Record:
    """Read the lists of a CSV record; a score that is no number stays text, which no list of numbers takes."""
    contents = record[CONTENTS]
    if in_brackets(contents):
        return record  # and no list, which is found out later
    split: Record = {USER_ID: record[USER_ID], CONTENTS: contents.split(separator) if contents else []}
    if scores := record.get(SCORES):
        try:
            split[SCORES] = [float(score) for score in scores.split(separator)]
        except ValueError:
            split[SCORES] = scores.split(separator)
    return split


def _with_texts(name: str, value: Any) -> Any:
    """Return a value with whole numbers as texts where ids stand."""
    if name == USER_ID:
        return text_of_number(value)
    return [text_of_number(item) for item in value] if name == CONTENTS and isinstance(value, list) else value


def _type_problem(record: Record) -> Problem | None:
    """Return why a record does not fit the columns' types; what else may be wrong with it is checked later."""
    for name in record.keys() - _KNOWN:
        return shorten(name), "wrong_column"
    if (problem := id_problem(record.get(USER_ID))) in ("not_text", "not_utf8"):
        return USER_ID, f"user_id_{problem}"
    contents = record.get(CONTENTS)
    if contents is not None and not isinstance(contents, list):
        written = isinstance(contents, str) and in_brackets(contents)
        return CONTENTS, "contents_in_brackets" if written else "contents_not_a_list"
    for content_id in contents or ():
        if isinstance(content_id, dict):
            return CONTENTS, "content_is_an_object"
        if (problem := id_problem(content_id)) in ("not_text", "not_utf8"):
            return CONTENTS, f"content_id_{problem}"
    scores = record.get(SCORES)
    if scores is not None and not isinstance(scores, list):
        return SCORES, "scores_not_a_list"
    if not all(isinstance(score, int | float | None) and not isinstance(score, bool) for score in scores or ()):
        return SCORES, "score_not_a_number"
    if any(isinstance(score, int) and abs(score) > 1e300 for score in scores or ()):
        return SCORES, "score_out_of_range"
    return None
