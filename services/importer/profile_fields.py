"""The fields of profiles and their types: a field has one type in all rows of a version.

What ``profiles:`` of ``mesh.yaml`` declares holds. For the others a Parquet file says the types of its columns, and
text files are read once before anything is written: a field is a list when any of its values is one, else a text when
any of them is, else a number. So a postal code is a text for everybody, although most look like numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from banditmesh.lengths import END_S, FIRST_S
from services.importer.rows import USER_ID, is_list, is_list_of_ids, is_number, is_text

FieldType = Literal["text", "number", "list"]
USED_SERVICES = "used_services"
_NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_A_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000}
"""By the unit of times; those in nanoseconds lie all between 1677 and 2262."""
_RANK: Mapping[FieldType, int] = {"number": 0, "text": 1, "list": 2}


class BadValue(Exception):
    """A value that no profile can hold; ``args[0]`` is the reason."""


def stronger(one: FieldType | None, other: FieldType) -> FieldType:
    """Return the type that holds the values of both."""
    return other if one is None or _RANK[other] > _RANK[one] else one


def type_of_text(text: str, list_separator: str) -> FieldType | None:
    """Return the type of one value of a CSV; None when it is empty."""
    if not text:
        return None
    if list_separator in text:
        return "list"
    return "number" if _NUMBER.fullmatch(text.strip()) else "text"


def type_of_value(value: Any) -> FieldType | None:
    """Return the type of one value of a JSON object; None when it is null, or nothing that a profile can hold."""
    if isinstance(value, list):
        return "list"
    if isinstance(value, str | bool):
        return "text"
    return "number" if isinstance(value, int | float) else None


def type_of_column(kind: pa.DataType) -> FieldType | None:
    """Return the type of a column of a Parquet file; None when a profile cannot hold its values."""
    if pa.types.is_dictionary(kind):
        return type_of_column(kind.value_type)
    if is_list(kind):
        return "list" if is_list_of_ids(kind) else None
    if is_number(kind):
        return "number"
    is_time = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    return "text" if is_text(kind) or pa.types.is_boolean(kind) or is_time or pa.types.is_null(kind) else None


def converted(field: str, raw: Any, wanted: FieldType, list_separator: str | None) -> str | float | list[str] | None:
    """Return the value of a field, None when it has none.

    Args:
        field: Its name.
        raw: As the file has it.
        wanted: Its type.
        list_separator: Between the items of a list in a text; None: a text is no list.

    Raises:
        BadValue: It is nested, not finite, not of the type, or ``used_services`` and no list.
    """
    if raw is None or (raw == "" and list_separator is not None):
        return None
    if field == USED_SERVICES and not isinstance(raw, list) and list_separator is None:
        raise BadValue("not_a_list")
    if wanted == "list":
        if isinstance(raw, str) and list_separator is not None:
            return raw.split(list_separator)
        items = raw if isinstance(raw, list) else [raw]
        if not all(isinstance(item, str | int | bytes | Decimal) and not isinstance(item, bool) for item in items):
            raise BadValue("list_item_not_text" if isinstance(raw, list) else "not_a_list")
        return [_text(item) for item in items]
    if isinstance(raw, list):
        raise BadValue("list_where_one_value_is_expected")
    return _number(raw) if wanted == "number" else _text(raw)


def _text(raw: Any) -> str:
    """Return a value as a text: numbers by their shortest spelling, times as ISO 8601 says, in UTC."""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, int):
        return str(raw)
    if isinstance(raw, float):
        return str(int(raw)) if raw.is_integer() else repr(raw)
    if isinstance(raw, Decimal):
        return format(raw.normalize(), "f")
    if isinstance(raw, bytes):
        return raw.decode()
    if isinstance(raw, datetime):
        return raw.astimezone(UTC).isoformat().replace("+00:00", "Z") if raw.tzinfo else raw.isoformat()
    if isinstance(raw, date):
        return raw.isoformat()
    raise BadValue("unsupported_value")


def _number(raw: Any) -> float:
    """Return a value as a number, a time as the seconds since 1970; one without a time zone is UTC."""
    if isinstance(raw, datetime):
        return (raw if raw.tzinfo else raw.replace(tzinfo=UTC)).timestamp()
    if isinstance(raw, date):
        return datetime(raw.year, raw.month, raw.day, tzinfo=UTC).timestamp()
    if isinstance(raw, str) and not _NUMBER.fullmatch(raw.strip()):
        raise BadValue("not_a_number")
    if isinstance(raw, bool) or not isinstance(raw, str | int | float | Decimal):
        raise BadValue("not_a_number" if isinstance(raw, bool) else "unsupported_value")
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadValue("number_not_finite")
    return number


def arrow_times(column: pa.Array) -> pa.Array:
    """Return a column whose values Python can hold: its times hold microseconds, those with a time zone in UTC."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if not pa.types.is_timestamp(kind):
        return column
    return column.cast(pa.timestamp("us", "UTC" if kind.tz else None), safe=False)


def beyond_time(column: pa.Array) -> list[int]:
    """Return the rows of a column with a time outside the years 1 to 9999, which Python cannot hold."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_date(column.type):
        column = column.cast(pa.date64()).cast(pa.timestamp("ms"))
    per_s = _A_SECOND.get(column.type.unit) if pa.types.is_timestamp(column.type) else None
    if per_s is None:
        return []
    at = np.asarray(pc.fill_null(column.cast(pa.int64()), 0), np.int64)
    rows: list[int] = np.flatnonzero((at < FIRST_S * per_s) | (at >= END_S * per_s)).tolist()
    return rows


def declared(types: Mapping[str, FieldType]) -> dict[str, FieldType]:
    """Return the types that hold whatever the files say."""
    return {**types, USER_ID: "text", USED_SERVICES: "list"}
