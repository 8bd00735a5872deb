"""What the readers of all formats yield, and the columns that each kind of file has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.importer.failure import Failure, ImportFailed, Reject, shorten
from services.importer.sources.parts import Part

Record = dict[str, Any]
CheckColumns = Callable[[Sequence[str], str], None]
"""Called with the columns and the file; raises ImportFailed ``wrong_column``."""


@dataclass(frozen=True)
class NumberedLines:
    """Lines that are not blank.

    Attributes:
        rows: Their numbers, from 1.
        texts: The lines, without their ends.
        rejects: Lines that are no text.
        last: Number of the last line, blank and broken ones included.
    """

    rows: list[int]
    texts: list[str]
    rejects: list[Reject]
    last: int

    def after(self, row: int, *, but: int) -> NumberedLines:
        """Return the lines behind a row, and the first ``but`` ones whatever their numbers."""
        if not self.rows or self.rows[0] > row:
            return self
        kept = [i for i, each in enumerate(self.rows) if i < but or each > row]
        return NumberedLines(
            [self.rows[i] for i in kept],
            [self.texts[i] for i in kept],
            [reject for reject in self.rejects if reject.row > row],
            self.last,
        )


@dataclass(frozen=True)
class TextBatch:
    """Rows of a text file, parsed but not checked.

    Attributes:
        part: Where they stand.
        rows: For each record its line, from 1.
        records: The fields by name; of a CSV all are text.
        rejects: Lines that could not be parsed.
        last_row: The last line of the batch, blank and broken ones included.
    """

    part: Part
    rows: Sequence[int]
    records: Sequence[Record]
    rejects: Sequence[Reject]
    last_row: int


@dataclass(frozen=True)
class ArrowBatch:
    """Rows of a Parquet file.

    Attributes:
        part: Where they stand.
        rows: ``int64[n]``, for each row its number, from 1.
        columns: The rows.
        last_row: Number of the last one.
    """

    part: Part
    rows: NDArray[np.int64]
    columns: pa.RecordBatch
    last_row: int


Batch = TextBatch | ArrowBatch


def wrong_column(file: str, message: str, column: str = "") -> ImportFailed:
    """The failure of a file whose columns are not what they must be."""
    return ImportFailed(Failure("wrong_column", f"{file}: {message}", file=file, column=column))


def found_columns(names: Sequence[str], known: Sequence[str], file: str) -> str:
    """Return the columns of a file in words, and what to do when it seems to have no header.

    They are named only when at least one of the known columns is among them, perhaps in another spelling: what has
    none of these is no file of ours, and a message must not give away what is in it.
    """
    spelled = {_spelling(name) for name in known}
    if any(_spelling(name) in spelled for name in names):
        return "found " + ", ".join(shorten(name) for name in names)
    if not names:
        return "found none"
    header = ""
    if not {"csv", "tsv"}.isdisjoint(file.rpartition("/")[2].lower().split(".")):
        header = f'; where the first line is no header, notify with csv: {{"columns": ["{known[0]}", …]}}'
    return f"found {len(names)}, none of them with such a name{header}"


def _spelling(name: str) -> str:
    """What is left of a name without case and punctuation: ``User ID`` is spelled as ``user_id`` and ``users``."""
    letters = "".join(letter for letter in name.lower() if letter.isalnum())
    return letters.removesuffix("s").removesuffix("id")
