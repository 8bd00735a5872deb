"""Arrow columns as Python values: what `to_pylist` gives, without an object a cell, in a third of the time."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from banditmesh.duplicates import first_twice


def values(column: pa.Array) -> list[Any]:
    """n values, None for null; structs are dicts without their nulls, which a log takes for absence anyway."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return values(column.dictionary_decode())
    if pa.types.is_struct(kind):
        found: list[Any] = _structs(column)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        found = _lists(column)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found = column.to_numpy(zero_copy_only=False).tolist()
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _texts(column)
    elif pa.types.is_map(kind):
        return _maps(column)
    elif pa.types.is_timestamp(kind):
        found = _times(column)
    elif pa.types.is_decimal(kind):
        number = int if kind.scale == 0 else float
        return [None if each is None else number(each) for each in column.to_pylist()]
    elif isinstance(kind, pa.UuidType):
        return [None if each is None else str(each) for each in column.to_pylist()]
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        found = column.fill_null(0).to_numpy(zero_copy_only=False).tolist()  # with nulls integers would be floats
    else:
        return column.to_pylist()  # type: ignore[no-any-return]
    if column.null_count:
        for at in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
            found[at] = None
    return found


def foreign(field: pa.Field, path: str = "") -> tuple[str, str] | None:
    """The first column, or part of one, whose type its writer alone knows, and that type: the numbers that are kept of
    pandas' Period, for one, are none of it."""
    path = f"{path}.{field.name}" if path else field.name
    name = (field.metadata or {}).get(b"ARROW:extension:name")
    if name is not None and not isinstance(field.type, pa.BaseExtensionType):
        return path, name.decode(errors="replace")
    kind = field.type
    below = [kind.field(at) for at in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    return next((found for each in below if (found := foreign(each, path)) is not None), None)


def _texts(column: pa.Array) -> list[Any]:
    """Bytes as the texts that Spark, Hive and Impala write so; what is not UTF-8 stays bytes, which no field takes."""
    return [_text(each) for each in column.to_pylist()]


def _text(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _maps(column: pa.MapArray) -> list[Any]:
    """Dicts. Raises ArrowInvalid when one has a key twice."""
    listed = values(column.cast(pa.list_(column.type.field(0))))  # structs of a key and a value
    return [None if entries is None else _dict(entries) for entries in listed]


def _dict(entries: list[dict[str, Any]]) -> dict[Any, Any]:
    found = {each["key"]: each.get("value") for each in entries}
    if len(found) < len(entries):
        raise pa.ArrowInvalid(f"a map has the key {first_twice(each['key'] for each in entries)!r} twice")
    return found


def _times(column: pa.Array) -> list[Any]:
    """Datetimes to the microsecond below, those with a zone in UTC; what no datetime holds stays what numpy has."""
    zone = column.type.tz
    exact = column.fill_null(0).cast(pa.timestamp(column.type.unit)).to_numpy(zero_copy_only=False)
    zoned = UTC if zone is not None else None
    found = []
    for at in exact:
        time = at.astype("datetime64[us]").item()
        found.append(time.replace(tzinfo=zoned) if isinstance(time, datetime) else at)
    return found


def _structs(column: pa.StructArray) -> list[dict[str, Any]]:
    fields = [(column.type.field(at).name, part) for at, part in enumerate(column.flatten())]
    found: list[dict[str, Any]] = [{} for _ in range(len(column))]
    for name, part in fields:
        if part.null_count:
            for row, value in zip(found, values(part), strict=True):
                if value is not None:
                    row[name] = value
        else:
            for row, value in zip(found, values(part), strict=True):
                row[name] = value
    return found


def _lists(column: pa.ListArray) -> list[list[Any]]:
    flat = values(column.flatten())  # of this slice alone, and without what stands behind nulls
    counts = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(counts).tolist()
    return [flat[start:stop] for start, stop in pairwise([0, *ends])]
