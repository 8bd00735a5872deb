"""Profile rows: what is known of a user, such as gender, age band, country, used services.

Columns: ``user_id`` and any others; a value is a text, a number or a list of texts. ``used_services`` is always a
list. A field without a value (null; in a CSV the empty text) is left out of that user's profile. In a CSV a value
with a ``|`` is a list, and one that JSON would read as a number is a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from banditmesh.runtime import packing
from services.importer.failure import Reject, shorten
from services.importer.rows import USER_ID, Packed, broken_utf8, id_problem, is_list, is_number, is_text
from services.importer.sources.records import ArrowBatch, Batch, Record, TextBatch, found_columns, wrong_column

USED_SERVICES = "used_services"
MAX_FIELDS = 64
MAX_FIELD_NAME_BYTES = 64
MAX_PROFILE_BYTES = 4096
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_EXPECTED = "user_id: string and fields that are string, number, bool or list<string>"


class BadValue(Exception):
    """A value that no profile can hold; ``args[0]`` is the reason."""


class ProfilesPacker:
    """Checks and packs the rows of one version of the profiles."""

    def __init__(self, *, version: int) -> None:
        self._version = version

    def check_columns(self, names: Sequence[str], file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a file may have just these columns."""
        found = found_columns(names, (USER_ID,))
        if USER_ID not in names:
            raise wrong_column(file, f"the column {USER_ID!r} is missing; expected {_EXPECTED}; {found}", USER_ID)
        if not 2 <= len(names) <= MAX_FIELDS + 1:
            raise wrong_column(
                file, f"{len(names) - 1} fields beside {USER_ID}; 1 to {MAX_FIELDS} are possible; {found}"
            )
        for name in names:
            if not 1 <= len(name.encode(errors="replace")) <= MAX_FIELD_NAME_BYTES:
                raise wrong_column(
                    file, f"a column's name has 1 to {MAX_FIELD_NAME_BYTES} bytes; {found}", shorten(name)
                )

    def check_schema(self, schema: pa.Schema, file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a Parquet file may have these columns of these types."""
        self.check_columns(schema.names, file)
        for name, kind in zip(schema.names, schema.types, strict=True):
            listed = is_list(kind) and is_text(kind.value_type)
            if name == USER_ID:
                fits = is_text(kind)
            elif name == USED_SERVICES:
                fits = listed
            else:
                fits = listed or is_text(kind) or is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
            if not fits:
                raise wrong_column(file, f"the column {name!r} is {kind}; expected {_EXPECTED}", name)

    def pack(self, batch: Batch) -> Packed:
        """Check and pack a batch."""
        records, rows, rejects = _from_arrow(batch) if isinstance(batch, ArrowBatch) else _from_text(batch)
        read = len(batch.rows) + (len(batch.rejects) if isinstance(batch, TextBatch) else 0)
        users: list[str] = []
        values: list[bytes] = []
        for row, record in zip(rows, records, strict=True):
            column = USER_ID
            try:
                if problem := id_problem(record.get(USER_ID)):
                    raise BadValue(f"user_id_{problem}")
                profile: packing.Profile = {}
                for column, raw in record.items():
                    if column != USER_ID and (value := _value(column, raw)) is not None:
                        profile[column] = value
                column = ""
                value_bytes = _pack(self._version, profile)
            except BadValue as bad:
                rejects.append(Reject(batch.part.uri, int(row), shorten(column), bad.args[0], shorten(record)))
            else:
                users.append(record[USER_ID])
                values.append(value_bytes)
        return Packed(users, values, [], rejects, read, batch.last_row)


def _pack(version: int, profile: packing.Profile) -> bytes:
    if len(profile) > MAX_FIELDS:
        raise BadValue("too_many_fields")
    try:
        packed = packing.pack_profile(version, profile)
    except UnicodeEncodeError as error:
        raise BadValue("not_utf8") from error
    if len(packed) > MAX_PROFILE_BYTES:
        raise BadValue("profile_too_large")
    return packed


def _value(field: str, raw: Any) -> str | float | list[str] | None:
    """Return the value of a field, None when it has none.

    Raises:
        BadValue: It is nested, not finite, or ``used_services`` and no list.
    """
    if raw is None:
        return None
    if isinstance(raw, list):
        if not all(isinstance(item, str) for item in raw):
            raise BadValue("list_item_not_text")
        return raw
    if field == USED_SERVICES:
        raise BadValue("not_a_list")
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, int | float):
        try:
            number = float(raw)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise BadValue("number_not_finite")
        return number
    if isinstance(raw, str):
        return raw
    raise BadValue("unsupported_value")


def _from_text(batch: TextBatch) -> tuple[Sequence[Record], Sequence[int], list[Reject]]:
    records = batch.records
    if batch.part.format == "csv":
        records = [{name: _read(name, text) for name, text in record.items()} for record in records]
    return records, batch.rows, list(batch.rejects)


def _read(field: str, text: str) -> str | float | list[str] | None:
    """Read one value of a CSV."""
    if field == USER_ID:
        return text
    if not text:
        return None
    if field == USED_SERVICES or "|" in text:
        return text.split("|")
    return float(text) if _NUMBER.fullmatch(text) else text


def _from_arrow(batch: ArrowBatch) -> tuple[list[Record], Sequence[int], list[Reject]]:
    broken = np.zeros(len(batch.rows), bool)
    rejects: list[Reject] = []
    for name, column in zip(batch.columns.schema.names, batch.columns.columns, strict=True):
        for i in _broken_rows(column):
            if not broken[i]:
                rejects.append(Reject(batch.part.uri, int(batch.rows[i]), name, "not_utf8", ""))
            broken[i] = True
    rows: list[int] = batch.rows[~broken].tolist()
    kept = batch.columns.filter(pa.array(~broken)) if broken.any() else batch.columns
    return kept.to_pylist(), rows, rejects


def _broken_rows(column: pa.Array) -> Any:
    """Return the rows of a column with a text that is not UTF-8."""
    kind = column.type
    if is_list(kind):
        counts = np.asarray(column.value_lengths().fill_null(0), np.int64)
        broken = broken_utf8(
            column.flatten().cast(pa.string()) if pa.types.is_dictionary(kind.value_type) else column.flatten()
        )
        return np.unique(np.repeat(np.arange(len(column)), counts)[broken]).tolist()
    if is_text(kind):
        return np.flatnonzero(
            broken_utf8(column.cast(pa.string()) if pa.types.is_dictionary(kind) else column)
        ).tolist()
    return []
