"""Parquet files, in record batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from services.importer.failure import Failure, ImportFailed, unread
from services.importer.sources.formats import HEAD_BYTES, in_words
from services.importer.sources.parts import Part
from services.importer.sources.records import ArrowBatch


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
        """Names and types of the columns."""
        return self._file.schema_arrow

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
                    yield ArrowBatch(self._part, np.arange(first, row + 1), batch.slice(skipped), row)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self._part, error) from error


def _unreadable(part: Part, error: Exception, file: pa.NativeFile | None = None) -> ImportFailed:
    """``file``: look into it for what it is instead."""
    problem = "is no readable Parquet file"
    if file is not None:
        try:
            what = in_words(file.read_at(HEAD_BYTES, 0))
        except (pa.ArrowException, OSError):  # then it is as unreadable as the error says
            what = ""
        if what == "Parquet":
            problem = "is Parquet without its end: it is cut off, damaged or still being written"
        elif what:
            problem = f"is {what}, not Parquet: name it as what it is, or write Parquet, CSV or JSON lines"
            return ImportFailed(Failure("unreadable_file", f"{part.uri} {problem}", file=part.uri))
    return unread(part.uri, problem, error)
