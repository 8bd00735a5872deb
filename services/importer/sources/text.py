"""CSV and JSON lines: cut into lines before anything parses them, so that a broken line costs that line alone and is
named by its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from services.importer.failure import Failure, ImportFailed, Reject, shorten, unread
from services.importer.sources.delimited import DelimitedParser
from services.importer.sources.formats import CsvOptions
from services.importer.sources.json_lines import JsonLinesParser
from services.importer.sources.lines import Lines, Readable, read_lines
from services.importer.sources.parts import Part
from services.importer.sources.records import CheckColumns, NumberedLines, TextBatch


class Parser(Protocol):
    """Parser of one file."""

    @property
    def known(self) -> bool:
        """Whether the columns are known and right."""
        ...

    @property
    def quotable(self) -> bool:
        """Whether this has been seen to be a file of ours; before that no message may quote it."""
        ...

    def parse(self, lines: NumberedLines, *, final: bool) -> TextBatch | None:
        """Parse lines that follow those of the last call; what needs the next ones is kept until ``final``."""
        ...


def read_text(
    stream: Readable,
    part: Part,
    check_columns: CheckColumns,
    csv: CsvOptions,
    *,
    after_row: int,
    batch_rows: int,
    may_be_empty: bool = False,
) -> Iterator[TextBatch]:
    """Yield the lines after line ``after_row``, at most ``batch_rows`` at a time.

    Args:
        stream: The text, in UTF-8.
        part: Where it comes from.
        check_columns: Called with the columns, once.
        csv: How a CSV is written.
        after_row: The last line that is not wanted.
        batch_rows: How many lines to read at once.
        may_be_empty: Whether a CSV may lack even its header, as one of several parts may.

    Raises:
        ImportFailed: ``wrong_column``, ``empty_file``, ``unreadable_file`` (also a gzip that ends too early).
    """
    parser: Parser = (
        DelimitedParser(part, check_columns, csv) if part.format == "csv" else JsonLinesParser(part, check_columns)
    )
    last = 0
    for chunk in _read(stream, part, batch_rows):
        last = chunk.first + len(chunk.lines) - 1
        header = 0 if parser.known or part.format == "jsonl" else 1
        if last <= after_row and not header:
            continue
        lines = _numbered(chunk, part, show=parser.quotable).after(after_row, but=header)
        batch = parser.parse(lines, final=False)
        if batch and last > after_row:
            yield batch
    batch = parser.parse(NumberedLines([], [], [], last), final=True)
    if batch and (batch.records or batch.rejects):
        yield batch
    if part.format == "csv" and not parser.known and not may_be_empty:
        what = "has no line with anything in it" if last else "is empty"
        message = f"{part.uri} {what}: the file that was to be written here is not; a CSV without rows has a header"
        raise ImportFailed(Failure("empty_file", message, file=part.uri))


def _read(stream: Readable, part: Part, batch_rows: int) -> Iterator[Lines]:
    lines = read_lines(stream, batch_rows)
    while True:
        try:
            chunk = next(lines, None)
        except (OSError, EOFError) as error:
            raise unread(part.uri, "cannot be read", error) from error
        if chunk is None:
            return
        yield chunk


def _numbered(chunk: Lines, part: Part, *, show: bool) -> NumberedLines:
    """Decode the lines that are not blank, with their numbers; ``show``: rejects may quote them."""
    lines = chunk.lines
    last = chunk.first + len(lines) - 1
    present = [line for line in lines if line]
    if len(present) == len(lines):
        try:
            texts = b"\n".join(present).decode().split("\n")
            return NumberedLines(list(range(chunk.first, last + 1)), texts, [], last)
        except UnicodeDecodeError:
            pass  # below, line by line
    found = NumberedLines([], [], [], last)
    for row, line in enumerate(lines, chunk.first):
        if line is None:
            found.rejects.append(Reject(part.uri, row, "", "line_too_long", ""))
        elif line:
            try:
                found.texts.append(line.decode())
                found.rows.append(row)
            except UnicodeDecodeError:
                found.rejects.append(Reject(part.uri, row, "", "not_utf8", shorten(line) if show else ""))
    return found
