"""Mapping rows: which contents a logic proposes for which user.

Columns: ``user_id``, ``contents`` (a list, the best first), optional ``scores`` (a list of numbers as long as
``contents``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from banditmesh.bandits.hashing import content_key
from banditmesh.lengths import MAX_CONTENT_ID_BYTES, MAX_USER_ID_BYTES
from banditmesh.runtime import packing
from services.importer.content_check import CONTROL
from services.importer.failure import JobWarning, Reject, shorten
from services.importer.mapping_columns import COLUMNS, CONTENTS, SCORES, MappingRows, Problem, list_counts, mapping_rows
from services.importer.rows import (
    USER_ID,
    Packed,
    broken_utf8,
    index_columns,
    index_warnings,
    is_id,
    is_list,
    is_list_of_ids,
    is_number,
    text_lengths,
    type_advice,
)
from services.importer.sources.parts import Part
from services.importer.sources.records import Batch, TextBatch, found_columns, wrong_column
from services.importer.spoiled import DOUBTS, lost_digits, other_separator

EXPECTED = "user_id: text or whole number, contents: list of these, and optionally scores: list of numbers"
MAX_SCORE = 65504.0
"""The greatest 16-bit float; scores are kept in 16 bits."""
MAX_REMEMBERED = 250_000
"""Content ids whose keys a job remembers (about 10 MB). Beyond that it forgets them all, and the contents are looked
up once more.
"""
_NO_IDS, _NO_KEYS = pa.array([], pa.string()), np.empty(0, np.uint64)


class MappingPacker:
    """Checks and packs the rows of one mapping."""

    def __init__(self, service: str, *, version: int, max_candidates: int, list_separator: str = "|") -> None:
        self._service = service
        self._version = version
        self._max_candidates = max_candidates
        self._list_separator = list_separator
        self._known_ids, self._known_keys = _NO_IDS, _NO_KEYS
        self._files: set[str] = set()
        self._warnings: list[JobWarning] = []

    def check_columns(self, names: Sequence[str], file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a file may have just these columns."""
        missing = [name for name in (USER_ID, CONTENTS) if name not in names]
        index = index_columns(names)
        unknown = [name for name in names if name not in COLUMNS and name not in index]
        if missing or unknown:
            what = f"the column {missing[0]!r} is missing" if missing else f"the column {unknown[0]!r} is unknown"
            found = found_columns(names, COLUMNS, file)
            raise wrong_column(file, f"{what}; expected {EXPECTED}; {found}", (missing or unknown)[0])
        if file not in self._files:
            self._files.add(file)
            self._warnings += index_warnings(names, file)

    def check_schema(self, schema: pa.Schema, file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a Parquet file may have these columns of these types."""
        self.check_columns(schema.names, file)
        for name, kind in zip(schema.names, schema.types, strict=True):
            fits = {
                USER_ID: is_id(kind),
                CONTENTS: is_list_of_ids(kind),
                SCORES: is_list(kind) and is_number(kind.value_type),
            }
            if not fits.get(name, True):
                advice = type_advice(kind, as_id=name != SCORES)
                raise wrong_column(file, f"the column {name!r} is {kind}; expected {EXPECTED}{advice}", name)

    def pack(self, batch: Batch) -> Packed:
        """Check and pack a batch."""
        read = len(batch.rows) + (len(batch.rejects) if isinstance(batch, TextBatch) else 0)
        rows = mapping_rows(batch, self._list_separator)
        warnings, self._warnings = self._warnings, []
        if rows.trimmed.any():
            row, count = int(rows.rows[rows.trimmed][0]), int(rows.trimmed.sum())
            warnings.append(
                JobWarning("white_space_around_id", f"row {row} of {batch.part.uri}", batch.part.uri, row, count)
            )
        warnings += self._doubts(rows, batch.part)
        rejects = rows.rejects
        bad = self._problems(rows, as_text=batch.part.format == "csv")
        good = np.ones(len(rows.rows), bool)
        for i, (column, reason) in bad.items():
            good[i] = False
            rejects.append(Reject(batch.part.uri, int(rows.rows[i]), column, reason, _raw(rows, i)))
        users, contents, scores = rows.users, rows.contents, rows.scores
        if bad:
            mask = pa.array(good)
            users, contents = users.filter(mask), contents.filter(mask)
            scores = None if scores is None else scores.filter(mask)
        values, fresh = self._packed(contents, scores)
        return Packed(
            users.to_pylist(), values, rows.rows[good].tolist(), fresh, rejects, read, batch.last_row, warnings
        )

    def _doubts(self, rows: MappingRows, part: Part) -> list[JobWarning]:
        """Return warnings about ids that are valid and hardly what anybody meant."""
        ids, counts = rows.contents.flatten(), list_counts(rows.contents)
        row_of = np.repeat(rows.rows, counts)
        found: list[JobWarning] = []
        for reason, look, says in DOUBTS:
            for kind, texts, numbers in (("user", rows.users, rows.rows), ("content", ids, row_of)):
                if len(places := look(texts)):
                    row, first = int(numbers[places[0]]), texts[int(places[0])]
                    message = f"row {row} of {part.uri}: the {kind} {first} {says}"
                    found.append(JobWarning(reason, message, part.uri, row, len(places)))
        if part.format == "csv" and len(ids) and counts.max() <= 1 and (separator := other_separator(ids)):
            message = (
                f"row {int(row_of[0])} of {part.uri}: no list has the separator {self._list_separator!r}, and most "
                f"have {separator!r}: if that separates the contents, notify with csv.list_separator"
            )
            found.append(JobWarning("list_separator_unused", message, part.uri, int(row_of[0])))
        return found

    def _problems(self, rows: MappingRows, *, as_text: bool) -> dict[int, Problem]:
        """Return what is wrong with which row; the first thing found counts. ``as_text``: whether the file has no
        types, so that a number in it may be what is left of an id.
        """
        users, contents, scores = rows.users, rows.contents, rows.scores
        found: dict[int, Problem] = {}

        def note(rows: NDArray[Any], column: str, reason: str) -> None:
            for i in np.unique(rows).tolist():
                found.setdefault(i, (column, reason))

        lengths = text_lengths(users)
        note(np.flatnonzero(lengths == 0), USER_ID, "user_id_missing")
        note(np.flatnonzero(lengths > MAX_USER_ID_BYTES), USER_ID, "user_id_too_long")
        note(np.flatnonzero(broken_utf8(users)), USER_ID, "user_id_not_utf8")
        note(np.flatnonzero(np.asarray(pc.is_null(contents))), CONTENTS, "contents_missing")
        counts = list_counts(contents)
        note(np.flatnonzero(counts > self._max_candidates), CONTENTS, "too_many_candidates")
        row_of = np.repeat(np.arange(len(counts)), counts)
        ids = contents.flatten()
        lengths = text_lengths(ids)
        note(row_of[lengths == 0], CONTENTS, "content_id_missing")
        note(row_of[lengths > MAX_CONTENT_ID_BYTES], CONTENTS, "content_id_too_long")
        broken = broken_utf8(ids)
        note(row_of[broken], CONTENTS, "content_id_not_utf8")
        if not broken.any():  # else they cannot be searched
            found_control = np.asarray(pc.fill_null(pc.match_substring_regex(ids, CONTROL), False))
            note(row_of[found_control], CONTENTS, "content_id_has_control_character")
        if as_text:
            note(lost_digits(users), USER_ID, "user_id_rounded")
            note(row_of[lost_digits(ids)], CONTENTS, "content_id_rounded")
        if scores is not None:
            given = list_counts(scores)
            present = ~np.asarray(pc.is_null(scores))
            note(np.flatnonzero(present & (given != counts)), SCORES, "scores_mismatch")
            numbers = scores.flatten().to_numpy(zero_copy_only=False)
            of_score = np.repeat(np.arange(len(given)), given)
            note(of_score[~np.isfinite(numbers)], SCORES, "score_not_finite")
            note(of_score[np.abs(numbers) > MAX_SCORE], SCORES, "score_out_of_range")
        return found

    def _packed(self, contents: pa.Array, scores: pa.Array | None) -> tuple[list[bytes], list[str]]:
        """Return the packed values of these rows, and the content ids that no batch before had."""
        ids = contents.flatten().dictionary_encode()
        known, fresh = self._keys(ids.dictionary)
        keys = known[ids.indices.to_numpy(zero_copy_only=False)]
        counts = list_counts(contents)
        halves = np.zeros(len(keys), np.float16)
        if scores is not None:
            # A row whose scores are null has as many zeros.
            scored = np.repeat(~np.asarray(pc.is_null(scores)), counts)
            halves[scored] = scores.flatten().to_numpy(zero_copy_only=False)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return packing.pack_candidate_rows(self._version, offsets, keys, halves), fresh

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


def _raw(rows: MappingRows, i: int) -> str:
    """What the rejects file shows of the i-th row."""
    scores = None if rows.scores is None else rows.scores[i]
    try:
        raw = {USER_ID: rows.users[i].as_py(), CONTENTS: rows.contents[i].as_py()}
    except UnicodeDecodeError:
        return ""
    return shorten(raw if scores is None else {**raw, SCORES: scores.as_py()})
