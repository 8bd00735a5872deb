"""Profile rows: what is known of a user, such as gender, age band, country, used services.

Columns: ``user_id`` and any others; a value is a text, a number or a list of texts
(:mod:`services.importer.profile_fields`). ``used_services`` is always a list. A field without a value (null; in a CSV
the empty text) is left out of that user's profile. The columns that partition folders name are fields too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from banditmesh.lengths import MAX_NAME_BYTES, MAX_PROFILE_FIELDS
from banditmesh.runtime import packing
from services.importer.failure import JobWarning, Reject, merged, shorten
from services.importer.profile_fields import (
    USED_SERVICES,
    BadValue,
    FieldType,
    arrow_times,
    beyond_time,
    converted,
    declared,
    stronger,
    type_of_column,
    type_of_text,
    type_of_value,
)
from services.importer.rows import (
    USER_ID,
    Packed,
    broken_utf8,
    id_problem,
    index_columns,
    index_warnings,
    is_id,
    is_list,
    is_text,
    text_of_number,
    type_advice,
)
from services.importer.sources.parts import Part
from services.importer.sources.records import ArrowBatch, Batch, Record, TextBatch, found_columns, wrong_column
from services.importer.spoiled import (
    BOOLEANS_OTHERWISE,
    DOUBTS,
    LOST_DIGITS,
    NULLS,
    in_brackets,
    is_number_otherwise,
    loses_digits,
)

MAX_PROFILE_BYTES = 4096
_EXPECTED = "user_id: text or whole number, and fields that are text, number, bool, date, timestamp or list of texts"


class ProfilesPacker:
    """Checks and packs the rows of one version of the profiles."""

    def __init__(
        self,
        *,
        version: int,
        types: Mapping[str, FieldType] | None = None,
        services: Collection[str] = (),
        list_separator: str = "|",
    ) -> None:
        """``types``: declared ones; ``services``: the known ones, empty: any."""
        self._version = version
        self._declared = declared(types or {})
        self._services = frozenset(services)
        self._list_separator = list_separator
        self._no_fields = {USER_ID}
        self._doubted: set[tuple[str, str]] = set()
        self._files: set[str] = set()
        self._warnings: list[JobWarning] = []
        self.types: dict[str, FieldType] = {}
        """Of the fields that were not declared, as far as :meth:`learn` has seen them."""

    def check_columns(self, names: Sequence[str], file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a file may have just these columns."""
        found = found_columns(names, (USER_ID,), file)
        if USER_ID not in names:
            raise wrong_column(file, f"the column {USER_ID!r} is missing; expected {_EXPECTED}; {found}", USER_ID)
        index = index_columns(names)
        fields = [name for name in names if name not in (USER_ID, *index)]
        if not 1 <= len(fields) <= MAX_PROFILE_FIELDS:
            raise wrong_column(
                file, f"{len(fields)} fields beside {USER_ID}; 1 to {MAX_PROFILE_FIELDS} are possible; {found}"
            )
        for name in fields:
            if not 1 <= len(name.encode(errors="replace")) <= MAX_NAME_BYTES:
                raise wrong_column(file, f"a column's name has 1 to {MAX_NAME_BYTES} bytes; {found}", shorten(name))
        self._no_fields.update(index)
        if file not in self._files:
            self._files.add(file)
            self._warnings += index_warnings(names, file)

    def check_schema(self, schema: pa.Schema, file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a Parquet file may have these columns of these types, and learn
        them.
        """
        self.check_columns(schema.names, file)
        index = index_columns(schema.names)
        for name, kind in zip(schema.names, schema.types, strict=True):
            if name in index:
                continue
            found = type_of_column(kind)
            fits = is_id(kind) if name == USER_ID else found == "list" if name == USED_SERVICES else found is not None
            if not fits:
                advice = type_advice(kind, as_id=name == USER_ID)
                raise wrong_column(file, f"the column {name!r} is {kind}; expected {_EXPECTED}{advice}", name)
            if found and not pa.types.is_null(kind):
                self.types[name] = stronger(self.types.get(name), found)

    def learn(self, batch: TextBatch) -> None:
        """Learn the types of fields from rows of a text file, and of what its folders name."""
        is_csv = batch.part.format == "csv"
        for row, record in ((0, dict(batch.part.partition)), *zip(batch.rows, batch.records, strict=True)):
            for name, value in record.items():
                if self.types.get(name) == "list" or value is None:
                    continue
                found = type_of_text(value, self._list_separator) if is_csv else type_of_value(value)
                if found == "text" and is_csv and name not in self._no_fields:
                    self._doubt_text(name, value, batch.part, row)
                if found:
                    self.types[name] = stronger(self.types.get(name), found)

    def pack(self, batch: Batch) -> Packed:
        """Check and pack a batch."""
        separator = None
        records: Sequence[Record]
        if isinstance(batch, ArrowBatch):
            records, rows, rejects = _from_arrow(batch)
            read = len(batch.rows)
        else:
            records, rows, rejects = batch.records, batch.rows, list(batch.rejects)
            read = len(batch.rows) + len(batch.rejects)
            separator = self._list_separator if batch.part.format == "csv" else None
        partition = dict(batch.part.partition)
        users: list[str] = []
        values: list[bytes] = []
        user_rows: list[int] = []
        warnings: list[JobWarning] = []
        for row, raw in zip(rows, records, strict=True):
            column = USER_ID
            record = {**partition, **raw} if partition else raw
            try:
                user = self._user(record.get(USER_ID), batch.part, int(row), warnings)
                profile: packing.Profile = {}
                for column in record.keys() - self._no_fields:
                    raw_value = record[column]
                    if not 1 <= len(column.encode(errors="replace")) <= MAX_NAME_BYTES:
                        raise BadValue("field_name_not_1_to_64_bytes")
                    wanted = self._declared.get(column) or self.types.get(column) or _type(raw_value, separator)
                    if (value := converted(column, raw_value, wanted, separator)) is not None:
                        profile[column] = value
                        if wanted == "number" and loses_digits(raw_value):
                            message = (
                                f"row {row} of {batch.part.uri}, {column}: {raw_value} has more digits than a number"
                            )
                            advice = " keeps; if it is an id, declare the field as text in profiles: of mesh.yaml"
                            self._doubt("number_loses_digits", column, message + advice, batch.part, int(row))
                column = ""
                value_bytes = _pack(self._version, profile)
            except BadValue as bad:
                rejects.append(Reject(batch.part.uri, int(row), shorten(column), bad.args[0], shorten(record)))
                continue
            self._check_services(profile, batch.part, int(row), warnings)
            users.append(user)
            values.append(value_bytes)
            user_rows.append(int(row))
        self._doubt_users(users, user_rows, batch.part, warnings)
        warnings, self._warnings = [*self._warnings, *warnings], []
        return Packed(users, values, user_rows, [], rejects, read, batch.last_row, list(merged((), warnings)))

    def _doubt_text(self, field: str, text: str, part: Part, row: int) -> None:
        """Warn, once a field, of a text that makes the whole field one and was hardly meant as a text."""
        where = f"row {row} of {part.uri}, {field}: {shorten(text)!r} is read as a text"
        if text in NULLS:
            self._doubt("looks_null", field, f"{where}; where there is no value, write nothing", part, row)
        elif in_brackets(text):
            advice = f"; items of a list are separated by {self._list_separator!r}, without brackets and quotes"
            self._doubt("list_in_brackets", field, where + advice, part, row)
        elif is_number_otherwise(text):
            advice = "; write a number with a decimal point and nothing else"
            self._doubt("number_otherwise", field, where + advice, part, row)
        elif text in BOOLEANS_OTHERWISE:
            advice = f"; those of JSON and Parquet are read as true and false, so write {text.lower()}"
            self._doubt("boolean_otherwise", field, where + advice, part, row)

    def _doubt(self, reason: str, field: str, message: str, part: Part, row: int) -> None:
        if (reason, field) not in self._doubted:
            self._doubted.add((reason, field))
            self._warnings.append(JobWarning(reason, message, part.uri, row))

    def _user(self, raw: Any, part: Part, row: int, warnings: list[JobWarning]) -> str:
        user = text_of_number(raw)
        if isinstance(user, str) and user != (clean := user.strip()):
            user = clean
            warnings.append(JobWarning("white_space_around_id", f"row {row} of {part.uri}", part.uri, row))
        if problem := id_problem(user):
            raise BadValue(f"user_id_{problem}")
        if part.format == "csv" and LOST_DIGITS.fullmatch(str(user)):
            raise BadValue("user_id_rounded")
        return str(user)

    def _doubt_users(self, users: Sequence[str], rows: Sequence[int], part: Part, warnings: list[JobWarning]) -> None:
        ids = pa.array(users, pa.string())
        for reason, look, says in DOUBTS:
            if len(places := look(ids)):
                row, first = rows[places[0]], users[places[0]]
                message = f"row {row} of {part.uri}: the user {first} {says}"
                warnings.append(JobWarning(reason, message, part.uri, row, len(places)))

    def _check_services(self, profile: packing.Profile, part: Part, row: int, warnings: list[JobWarning]) -> None:
        used = profile.get(USED_SERVICES, [])
        for name in used if isinstance(used, list) and self._services else ():
            if name not in self._services:
                message = f"row {row} of {part.uri}: no service is called {shorten(name)!r}"
                warnings.append(JobWarning("unknown_service", message, part.uri, row))


def _type(value: Any, list_separator: str | None) -> FieldType:
    """The type of a value of which nothing is known but itself."""
    if isinstance(value, str) and list_separator is not None:
        return type_of_text(value, list_separator) or "text"
    return type_of_value(value) or "text"


def _pack(version: int, profile: packing.Profile) -> bytes:
    if len(profile) > MAX_PROFILE_FIELDS:
        raise BadValue("too_many_fields")
    try:
        packed = packing.pack_profile(version, profile)
    except UnicodeEncodeError as error:
        raise BadValue("not_utf8") from error
    if len(packed) > MAX_PROFILE_BYTES:
        raise BadValue("profile_too_large")
    return packed


def _from_arrow(batch: ArrowBatch) -> tuple[list[Record], Sequence[int], list[Reject]]:
    broken = np.zeros(len(batch.rows), bool)
    rejects: list[Reject] = []
    names = batch.columns.schema.names
    for name, column in zip(names, batch.columns.columns, strict=True):
        for reason, found in (("not_utf8", _broken_rows(column)), ("time_out_of_range", beyond_time(column))):
            for i in found:
                if not broken[i]:
                    rejects.append(Reject(batch.part.uri, int(batch.rows[i]), name, reason, ""))
                broken[i] = True
    rows: list[int] = batch.rows[~broken].tolist()
    columns = [arrow_times(column) for column in batch.columns.columns]
    at = names.index(USER_ID)
    columns[at] = columns[at].cast(pa.string(), safe=False)  # decimals and bytes are ids too
    table = pa.RecordBatch.from_arrays(columns, names=names)
    kept = table.filter(pa.array(~broken)) if broken.any() else table
    return kept.to_pylist(), rows, rejects


def _broken_rows(column: pa.Array) -> Any:
    """Return the rows of a column with a text that is not UTF-8."""
    kind = column.type
    if is_list(kind) and is_text(kind.value_type):
        counts = np.asarray(column.value_lengths().fill_null(0), np.int64)
        broken = broken_utf8(column.flatten().cast(pa.string(), safe=False))
        return np.unique(np.repeat(np.arange(len(column)), counts)[broken]).tolist()
    if is_text(kind):
        return np.flatnonzero(broken_utf8(column.cast(pa.string(), safe=False))).tolist()
    return []
