"""Rows as the bytes of a Parquet file, the same bytes for the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa
from pyarrow import parquet

from banditmesh.runtime.errors import DataLoss

ROWS_A_GROUP: Final = 262_144
_RANDOM: Final = ("impression_id",)
"""Bytes that nothing repeats: a dictionary of them is the column once more."""
_PLAIN: Final = ("propensity",)
"""Numbers that hardly repeat."""
_COUNTED: Final = (
    "impression_time",
    "decided_at",
    "example_time",
    "example_offset",
    "source_offset",
    "decision_offset",
    "t",
)
"""Numbers that grow from row to row: their differences are small."""


@contextmanager
def readable(key: str) -> Iterator[None]:
    """Around reading a file of the archive. Raises DataLoss, with the key, where it is no whole Parquet file of
    ours."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataLoss(
            f"a file of the archive cannot be read: {' '.join(str(error).split())[:200]}",
            field="key",
            value=key,
            hint="restore it as it was written; without it its rows are missing",
        ) from error


def encode(table: pa.Table) -> pa.Buffer:
    """The file of these rows."""
    sink = pa.BufferOutputStream()
    with writer(sink, table.schema) as file:
        file.write_table(table, row_group_size=ROWS_A_GROUP)
    return sink.getvalue()


def writer(sink: object, schema: pa.Schema) -> parquet.ParquetWriter:
    """Writes rows of this schema, group by group, into a path or a stream."""
    encoding = {name: "DELTA_BINARY_PACKED" for name in _COUNTED if name in schema.names}
    encoding |= {name: "DELTA_LENGTH_BYTE_ARRAY" for name in _RANDOM if name in schema.names}
    made = parquet.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=[path for path in _leaves(schema) if path not in encoding and path not in _PLAIN],
        column_encoding=encoding,
        store_schema=False,  # plain types alone, and 3 KB less a file
    )
    if schema.metadata:  # which goes with the schema that is not stored
        made.add_key_value_metadata(schema.metadata)
    return made


def _leaves(schema: pa.Schema) -> list[str]:
    """The paths of all columns that hold values, as Parquet names them."""
    found: list[str] = []

    def walk(field: pa.Field, path: str) -> None:
        if pa.types.is_struct(field.type):
            for child in field.type:
                walk(child, f"{path}.{child.name}")
        elif pa.types.is_list(field.type):
            walk(field.type.value_field, f"{path}.list.element")
        else:
            found.append(path)

    for field in schema:
        walk(field, field.name)
    return found
