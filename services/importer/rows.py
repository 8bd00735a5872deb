"""Rows that have been checked and packed, and what every kind of file checks of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from banditmesh.lengths import MAX_USER_ID_BYTES
from services.importer.failure import JobWarning, Reject
from services.importer.sources.records import Batch

USER_ID = "user_id"
_INDEX = re.compile(r"__index_level_\d+__|Unnamed: 0")


@dataclass(frozen=True)
class Packed:
    """A batch, ready to be written.

    Attributes:
        users: User ids; one that occurs again wins over its earlier rows.
        values: Their packed values, as long as ``users``.
        user_rows: Their rows in the file, as long as ``users``.
        fresh_contents: Ids of the contents that no batch before had, each once; empty for profiles.
        rejects: The rows that were left out.
        rows: How many rows were read, rejects included.
        last_row: Number of the last row of the batch in its file.
        warnings: What is not as it should be and cost no row.
    """

    users: list[str]
    values: list[bytes]
    user_rows: list[int]
    fresh_contents: list[str]
    rejects: list[Reject]
    rows: int
    last_row: int
    warnings: list[JobWarning] = field(default_factory=list)


class Packer(Protocol):
    """What one kind of file (mapping, profiles) makes of its rows."""

    def check_columns(self, names: Sequence[str], file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a file may have just these columns."""
        ...

    def check_schema(self, schema: pa.Schema, file: str) -> None:
        """Raise ImportFailed ``wrong_column`` unless a Parquet file may have these columns of these types."""
        ...

    def pack(self, batch: Batch) -> Packed:
        """Check and pack a batch."""
        ...


def type_advice(kind: pa.DataType, *, as_id: bool = False) -> str:
    """What would be right where a column is of this type and must not be, to be put behind an error; empty: nothing
    more to say. ``as_id``: where ids are expected.
    """
    item = kind.value_type if is_list(kind) else kind
    if isinstance(item, pa.OpaqueType):
        return (
            f"; what a {item.type_name} means is known to its writer alone: write it as text, in pandas by .astype(str)"
        )
    if pa.types.is_floating(item) and as_id:
        return "; pandas makes such numbers of whole ones where one is missing: write them as Int64 or text"
    if pa.types.is_struct(item) or pa.types.is_map(item):
        return "; write the ids alone" if as_id else "; write each of its values as a column of its own"
    if pa.types.is_duration(item) or pa.types.is_time(item):
        return "; write it as text, or as a number of seconds"
    if isinstance(item, pa.BaseExtensionType) or pa.types.is_fixed_size_binary(item):
        return "; write it as text"
    return ""


def id_problem(value: object, most_bytes: int = MAX_USER_ID_BYTES) -> str:
    """Return what is wrong with a user or content id: ``missing``, ``not_text``, ``too_long``, ``not_utf8``; empty:
    nothing.
    """
    if value is None or value == "":
        return "missing"
    if not isinstance(value, str):
        return "not_text"
    try:
        return "too_long" if len(value.encode()) > most_bytes else ""
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return "not_utf8"


def text_of_number(value: object) -> object:
    """Return the digits of a whole number, and anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def trimmed(texts: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Return texts without the white space around them, and ``bool[n]``: which ones had any."""
    try:
        clean = pc.utf8_trim_whitespace(texts)
    except pa.ArrowInvalid:  # some are not UTF-8, and will be rejected
        clean = pc.ascii_trim_whitespace(texts)
    had = text_lengths(clean) != text_lengths(texts)
    return (clean, had) if had.any() else (texts, had)


def index_columns(names: Sequence[str]) -> list[str]:
    """Return those of a file's columns that are pandas' row numbers: nobody meant them to be imported."""
    return [name for i, name in enumerate(names) if _INDEX.fullmatch(name) or (name == "" and i == 0)]


def index_warnings(names: Sequence[str], file: str) -> list[JobWarning]:
    """Return a warning for each column of row numbers."""
    return [
        JobWarning(
            "index_column_ignored", f"{file}: the column {name!r} is pandas' index, write with index=False", file
        )
        for name in index_columns(names)
    ]


def is_text(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are texts; some writers (Impala, old Hive) mark them as bytes."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def is_id(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type can be ids: texts and whole numbers."""
    if pa.types.is_dictionary(kind):
        return is_id(kind.value_type)
    return bool(is_text(kind) or pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0))


def is_list(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are lists."""
    # No list views: pyarrow 26.0 casts what stands behind a null of such to empty lists.
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_list_of_ids(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are lists of what can be ids; where all lists of a file are empty, their items
    have no type."""
    return is_list(kind) and (is_id(kind.value_type) or pa.types.is_null(kind.value_type))


def is_number(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def text_lengths(texts: pa.Array) -> NDArray[np.int64]:
    """``int64[n]``, the UTF-8 length of each text; 0 for a null."""
    return np.asarray(pc.fill_null(pc.binary_length(texts), 0), np.int64)


def broken_utf8(texts: pa.Array) -> NDArray[np.bool_]:
    """``bool[n]``: texts that are not UTF-8, which Arrow reads from Parquet without looking."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return np.array([not _decodes(raw) for raw in texts.cast(pa.binary()).to_pylist()], bool)
    return np.zeros(len(texts), bool)


def _decodes(raw: Any) -> bool:
    try:
        return raw is None or raw.decode() is not None
    except UnicodeDecodeError:
        return False
