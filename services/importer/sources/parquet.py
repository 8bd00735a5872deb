"""Parquet files, in record batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from services.importer.failure import Failure, ImportFailed, unread
from services.importer.sources.formats import HEAD_BYTES, in_words
from services.importer.sources.parts import Part
from services.importer.sources.records import ArrowBatch

_EXTENSION: Final = b"ARROW:extension:name"
_MAGIC_BYTES: Final = 4


class ParquetPart:
    """An open Parquet file."""

    def __init__(self, file: pa.NativeFile, part: Part) -> None:
        """Reads the footer.

        Raises:
            ImportFailed: ``unreadable_file``.
        """
        self._part = part
        try:
            # Without pre_buffer memory stays bounded, and a Python file (hdfs) is not read from several threads.
            self._file = parquet.ParquetFile(file, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(part, error, file) from error

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, as :meth:`read` yields them. A type that its writer alone knows, such as
        pandas' Period, is opaque: the numbers that are kept of its values are none of them."""
        return pa.schema([(field.name, _as_read(field)) for field in self._file.schema_arrow])

    @property
    def rows(self) -> int:
        """Number of rows, as the footer says."""
        return int(self._file.metadata.num_rows)

    def read(self, *, after_row: int, batch_rows: int) -> Iterator[ArrowBatch]:
        """Yield the rows after row ``after_row``, at most ``batch_rows`` at a time; row groups before it are not read
        at all.

        Raises:
            ImportFailed: ``unreadable_file``.
        """
        metadata = self._file.metadata
        row, group = 0, 0
        while group < metadata.num_row_groups and row + metadata.row_group(group).num_rows <= after_row:
            row += metadata.row_group(group).num_rows
            group += 1
        try:
            groups = range(group, metadata.num_row_groups)
            for batch in self._file.iter_batches(batch_rows, row_groups=list(groups), use_threads=False):
                skipped = min(max(after_row - row, 0), len(batch))
                first, row = row + skipped + 1, row + len(batch)
                if skipped < len(batch):
                    yield ArrowBatch(self._part, np.arange(first, row + 1), _uuids_as_texts(batch.slice(skipped)), row)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self._part, error) from error


def _as_read(field: pa.Field) -> pa.DataType:
    kind = field.type
    name = (field.metadata or {}).get(_EXTENSION)
    if name is not None and not isinstance(kind, pa.BaseExtensionType):  # registered by nobody here
        return pa.opaque(kind, name.decode(errors="replace"), "")
    if _is_list(kind):
        item = _as_read(kind.value_field)
        return kind if item == kind.value_type else pa.list_(item)
    return pa.string() if isinstance(kind, pa.UuidType) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _uuids_as_texts(batch: pa.RecordBatch) -> pa.RecordBatch:
    for at, field in enumerate(batch.schema):
        column, kind = batch.column(at), field.type
        if isinstance(kind, pa.UuidType):
            batch = batch.set_column(at, field.name, _texts(column))
        elif _is_list(kind) and isinstance(kind.value_type, pa.UuidType):
            counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
            lists = pa.ListArray.from_arrays(offsets, _texts(column.flatten()), mask=pc.is_null(column))
            batch = batch.set_column(at, field.name, lists)
    return batch


def _texts(uuids: pa.Array) -> pa.Array:
    return pa.array(
        [None if each is None else str(UUID(bytes=each)) for each in uuids.storage.to_pylist()], pa.string()
    )


def _unreadable(part: Part, error: Exception, file: pa.NativeFile | None = None) -> ImportFailed:
    """``file``: look into it for what it is instead."""
    problem = "is no readable Parquet file"
    if file is not None:
        try:
            what = in_words(file.read_at(HEAD_BYTES, 0))
        except (pa.ArrowException, OSError):  # then it is as unreadable as the error says
            what = ""
        if what == "Parquet" and _has_end(file):
            problem = (
                "is Parquet that is damaged, or has types that are not read: write text, int64, float64, lists of these"
            )
        elif what == "Parquet":
            problem = "is Parquet without its end: it is cut off, damaged or still being written"
        elif what:
            problem = f"is {what}, not Parquet: name it as what it is, or write Parquet, CSV or JSON lines"
            return ImportFailed(Failure("unreadable_file", f"{part.uri} {problem}", file=part.uri))
    return unread(part.uri, problem, error)


def _has_end(file: pa.NativeFile) -> bool:
    try:
        size = file.size()
        return bool(file.read_at(_MAGIC_BYTES, max(size - _MAGIC_BYTES, 0)) == b"PAR1")
    except (pa.ArrowException, OSError):
        return False
