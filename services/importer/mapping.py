"""Mapping rows: which contents a logic proposes for which user.

Columns: ``user_id: string``, ``contents: list<string>`` (the best first), optional ``scores: list<float>`` as long as
``contents``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from banditmesh.bandits.hashing import content_key
from banditmesh.runtime import packing
from banditmesh.runtime.limits import MAX_CONTENT_ID_BYTES, MAX_USER_ID_BYTES
from services.importer.failure import Reject, shorten
from services.importer.rows import (
    USER_ID,
    Packed,
    broken_utf8,
    id_problem,
    is_list,
    is_number,
    is_text,
    text_lengths,
)
from services.importer.sources.records import ArrowBatch, Batch, Record, TextBatch, found_columns, wrong_column

CONTENTS = "contents"
SCORES = "scores"
COLUMNS = (USER_ID, CONTENTS, SCORES)
EXPECTED = "user_id: string, contents: list<string>, and optionally scores: list<float>"
MAX_SCORE = 65504.0
"""The greatest 16-bit float; scores are kept in 16 bits."""
MAX_REMEMBERED = 250_000
"""Content ids whose keys a job remembers (about 10 MB). Beyond that it forgets them all, and the contents are looked
up once more.
"""

Problem = tuple[str, str]
"""Column and reason."""
_NO_IDS, _NO_KEYS = pa.array([], pa.string()), np.empty(0, np.uint64)
_USERS, _LISTS, _NUMBERS = pa.string(), pa.list_(pa.string()), pa.list_(pa.float64())


class MappingPacker:
    """Checks and packs the rows of one mapping."""

    def __init__(self, service: str, *, version: int, max_candidates: int) -> None:
        self._service = service
        self._version = version
        self._max_candidates = max_candidates
        self._known_ids, self._known_keys = _NO_IDS, _NO_KEYS

    def check_columns(self, names: Sequence[str], file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a file may have just these columns."""
        missing = [name for name in (USER_ID, CONTENTS) if name not in names]
        unknown = [name for name in names if name not in COLUMNS]
        if missing or unknown:
            what = f"the column {missing[0]!r} is missing" if missing else f"the column {unknown[0]!r} is unknown"
            found = found_columns(names, COLUMNS)
            raise wrong_column(file, f"{what}; expected {EXPECTED}; {found}", (missing or unknown)[0])

    def check_schema(self, schema: pa.Schema, file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a Parquet file may have these columns of these types."""
        self.check_columns(schema.names, file)
        for name, kind in zip(schema.names, schema.types, strict=True):
            fits = {
                USER_ID: is_text(kind),
                CONTENTS: is_list(kind) and is_text(kind.value_type),
                SCORES: is_list(kind) and is_number(kind.value_type),
            }
            if not fits[name]:
                raise wrong_column(file, f"the column {name!r} is {kind}; expected {EXPECTED}", name)

    def pack(self, batch: Batch) -> Packed:
        """Check and pack a batch."""
        rows: Sequence[int] | NDArray[np.int64]
        rejects: list[Reject]
        if isinstance(batch, ArrowBatch):
            columns, rows, rejects, read = _from_arrow(batch.columns), batch.rows, [], len(batch.rows)
        else:
            columns, rows, rejects = _from_text(batch)
            read = len(batch.rows) + len(batch.rejects)
        users, contents, scores = columns
        bad = self._problems(users, contents, scores)
        if bad:
            keep = np.ones(len(users), bool)
            keep[list(bad)] = False
            for i, (column, reason) in sorted(bad.items()):
                raw = {USER_ID: users[i], CONTENTS: contents[i], SCORES: scores[i] if scores else None}
                rejects.append(Reject(batch.part.uri, int(rows[i]), column, reason, _show(raw)))
            users, contents = users.filter(pa.array(keep)), contents.filter(pa.array(keep))
            scores = scores.filter(pa.array(keep)) if scores is not None else None
        return self._packed(users, contents, scores, rejects, read, batch.last_row)

    def _problems(self, users: pa.Array, contents: pa.Array, scores: pa.Array | None) -> dict[int, Problem]:
        """Return what is wrong with which row; the first thing found counts."""
        found: dict[int, Problem] = {}

        def note(rows: NDArray[Any], column: str, reason: str) -> None:
            for i in np.unique(rows).tolist():
                found.setdefault(i, (column, reason))

        lengths = text_lengths(users)
        note(np.flatnonzero(lengths == 0), USER_ID, "user_id_missing")
        note(np.flatnonzero(lengths > MAX_USER_ID_BYTES), USER_ID, "user_id_too_long")
        note(np.flatnonzero(broken_utf8(users)), USER_ID, "user_id_not_utf8")
        note(np.flatnonzero(np.asarray(pc.is_null(contents))), CONTENTS, "contents_missing")
        counts = _counts(contents)
        note(np.flatnonzero(counts > self._max_candidates), CONTENTS, "too_many_candidates")
        row_of = np.repeat(np.arange(len(counts)), counts)
        ids = contents.flatten()
        lengths = text_lengths(ids)
        note(row_of[lengths == 0], CONTENTS, "content_id_missing")
        note(row_of[lengths > MAX_CONTENT_ID_BYTES], CONTENTS, "content_id_too_long")
        note(row_of[broken_utf8(ids)], CONTENTS, "content_id_not_utf8")
        if scores is not None:
            given = _counts(scores)
            present = ~np.asarray(pc.is_null(scores))
            note(np.flatnonzero(present & (given != counts)), SCORES, "scores_mismatch")
            numbers = scores.flatten().to_numpy(zero_copy_only=False)
            with np.errstate(invalid="ignore"):
                wrong = ~(np.abs(numbers) <= MAX_SCORE)
            note(np.repeat(np.arange(len(given)), given)[wrong], SCORES, "score_not_finite")
        return found

    def _packed(
        self,
        users: pa.Array,
        contents: pa.Array,
        scores: pa.Array | None,
        rejects: list[Reject],
        read: int,
        last_row: int,
    ) -> Packed:
        ids = contents.flatten().dictionary_encode()
        known, fresh = self._keys(ids.dictionary)
        keys = known[ids.indices.to_numpy(zero_copy_only=False)]
        counts = _counts(contents)
        halves = np.zeros(len(keys), np.float16)
        if scores is not None:
            # A row whose scores are null has as many zeros.
            scored = np.repeat(~np.asarray(pc.is_null(scores)), counts)
            halves[scored] = scores.flatten().to_numpy(zero_copy_only=False)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        values = packing.pack_candidate_rows(self._version, offsets, keys, halves)
        return Packed(users.to_pylist(), values, fresh, rejects, read, last_row)

    def _keys(self, content_ids: pa.Array) -> tuple[NDArray[np.uint64], list[str]]:
        """Return ``uint64[n]``, the keys of these contents, and those ids that no batch before had."""
        if len(self._known_ids) > MAX_REMEMBERED:
            self._known_ids, self._known_keys = _NO_IDS, _NO_KEYS
        at = pc.index_in(content_ids, value_set=self._known_ids)
        if at.null_count:
            new = content_ids.filter(pc.is_null(at))
            fresh: list[str] = new.to_pylist()
            keys = np.array([content_key(self._service, content_id) for content_id in fresh], np.uint64)
            self._known_ids = pa.concat_arrays([self._known_ids, new])
            self._known_keys = np.concatenate([self._known_keys, keys])
            at = pc.index_in(content_ids, value_set=self._known_ids)
        else:
            fresh = []
        return self._known_keys[at.to_numpy()], fresh


def _counts(lists: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)


def _show(raw: dict[str, Any]) -> str:
    try:
        return shorten({name: value.as_py() for name, value in raw.items() if value is not None})
    except UnicodeDecodeError:
        return ""


def _from_arrow(columns: pa.RecordBatch) -> tuple[pa.Array, pa.Array, pa.Array | None]:
    names = columns.schema.names
    scores = columns.column(SCORES).cast(_NUMBERS, safe=False) if SCORES in names else None
    return columns.column(USER_ID).cast(_USERS), columns.column(CONTENTS).cast(_LISTS), scores


def _from_text(batch: TextBatch) -> tuple[tuple[pa.Array, pa.Array, pa.Array | None], Sequence[int], list[Reject]]:
    rejects = list(batch.rejects)
    rows, records = list(batch.rows), list(batch.records)
    if batch.part.format == "csv":
        records = [_split(record) for record in records]
    try:
        return _arrays(records), rows, rejects
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        # Some value is not of its column's type; only then is it worth going through them one by one.
        kept = []
        for i, record in enumerate(records):
            if problem := _type_problem(record):
                rejects.append(Reject(batch.part.uri, rows[i], *problem, shorten(record)))
            else:
                kept.append(i)
        return _arrays([records[i] for i in kept]), [rows[i] for i in kept], rejects


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


def _split(record: Record) -> Record:
    """Read the lists of a CSV record; a score that is no number stays text, which no list of numbers takes."""
    split: Record = {USER_ID: record[USER_ID], CONTENTS: record[CONTENTS].split("|") if record[CONTENTS] else []}
    if scores := record.get(SCORES):
        try:
            split[SCORES] = [float(score) for score in scores.split("|")]
        except ValueError:
            split[SCORES] = scores
    return split


def _type_problem(record: Record) -> Problem | None:
    """Return why a record does not fit the columns' types; what else may be wrong with it is checked later."""
    for name in record.keys() - _KNOWN:
        return shorten(name), "wrong_column"
    if (problem := id_problem(record.get(USER_ID))) in ("not_text", "not_utf8"):
        return USER_ID, f"user_id_{problem}"
    contents = record.get(CONTENTS)
    if contents is not None and not isinstance(contents, list):
        return CONTENTS, "contents_not_a_list"
    for content_id in contents or ():
        if (problem := id_problem(content_id)) in ("not_text", "not_utf8"):
            return CONTENTS, f"content_id_{problem}"
    scores = record.get(SCORES)
    if scores is not None and not isinstance(scores, list):
        return SCORES, "score_not_finite" if isinstance(scores, str) else "scores_not_a_list"
    if not all(
        isinstance(score, int | float) and not isinstance(score, bool) and abs(score) <= 1e300 for score in scores or ()
    ):
        return SCORES, "score_not_finite"
    return None


_KNOWN = frozenset(COLUMNS)
