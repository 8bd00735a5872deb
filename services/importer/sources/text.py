"""CSV and JSON lines: one record a line, so that a broken line costs that line alone and is named by its number.

A CSV has a header, commas, quotes by RFC 4180 but no line breaks inside quotes; the items of a list are separated by
``|``. JSON lines hold one object each.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator

from services.importer.failure import Failure, ImportFailed, Reject, shorten
from services.importer.sources.lines import Lines, Readable, read_lines
from services.importer.sources.parts import Part
from services.importer.sources.records import CheckColumns, Record, TextBatch, wrong_column

Rejects = list[Reject]


def read_text(
    stream: Readable, part: Part, check_columns: CheckColumns, *, after_row: int, batch_rows: int
) -> Iterator[TextBatch]:
    """Yield the lines after line ``after_row``, at most ``batch_rows`` at a time.

    Raises:
        ImportFailed: ``wrong_column``, ``unreadable_file`` (also a gzip that ends too early).
    """
    parser = _Csv(part, check_columns) if part.format == "csv" else _JsonLines(part, check_columns)
    lines = read_lines(stream, batch_rows)
    while True:
        try:
            chunk = next(lines, None)
        except (OSError, EOFError) as error:
            raise ImportFailed(
                Failure("unreadable_file", f"{part.uri} cannot be read: {error}", file=part.uri)
            ) from error
        if chunk is None:
            parser.finish()
            return
        if batch := parser.parse(chunk, after_row):
            yield batch


class _Csv:
    """Parser of one CSV file."""

    def __init__(self, part: Part, check_columns: CheckColumns) -> None:
        self._part = part
        self._check_columns = check_columns
        self._header: list[str] | None = None

    def finish(self) -> None:
        """The file has ended. Raises ImportFailed when there was not even a header."""
        if self._header is None:
            self._check_columns([], self._part.uri)

    def parse(self, chunk: Lines, after_row: int) -> TextBatch | None:
        last = chunk.first + len(chunk.lines) - 1
        if self._header is not None and last <= after_row:
            return None
        rejects: Rejects = []
        rows, texts = _decode(chunk, self._part, rejects, show=self._header is not None)
        if self._header is None and texts:
            self._header = self._read_header(texts[0])
            rows, texts = rows[1:], texts[1:]
        if self._header is None or last <= after_row:
            return None
        rows, texts = self._reject_broken(rows, texts, rejects)
        fields = self._split(rows, texts, rejects)
        records: list[Record] = []
        kept: list[int] = []
        header, width = self._header, len(self._header)
        for row, values in fields:
            if row <= after_row:
                continue
            if len(values) == width:
                records.append(dict(zip(header, values, strict=True)))
                kept.append(row)
            else:
                rejects.append(Reject(self._part.uri, row, "", "wrong_number_of_columns", shorten(",".join(values))))
        rejects = [reject for reject in rejects if reject.row > after_row]
        return TextBatch(self._part, kept, records, rejects, last)

    def _read_header(self, text: str) -> list[str]:
        try:
            header = [name.strip() for name in next(csv.reader([text], strict=True))]
        except (csv.Error, StopIteration) as error:
            raise wrong_column(self._part.uri, f"the header cannot be read: {error}") from error
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise wrong_column(self._part.uri, f"the column {twice[0]!r} stands twice in the header", twice[0])
        self._check_columns(header, self._part.uri)
        return header

    def _reject_broken(self, rows: list[int], texts: list[str], rejects: Rejects) -> tuple[list[int], list[str]]:
        """Leave out the lines that would pull their neighbours into them: an open quote, a bare carriage return."""
        odd = [i for i, text in enumerate(texts) if ('"' in text and text.count('"') & 1) or "\r" in text]
        if not odd:
            return rows, texts
        for i in odd:
            reason = "stray_carriage_return" if "\r" in texts[i] else "open_quote"
            rejects.append(Reject(self._part.uri, rows[i], "", reason, shorten(texts[i])))
        broken = set(odd)
        keep = [i for i in range(len(rows)) if i not in broken]
        return [rows[i] for i in keep], [texts[i] for i in keep]

    def _split(self, rows: list[int], texts: list[str], rejects: Rejects) -> list[tuple[int, list[str]]]:
        try:
            return list(zip(rows, csv.reader(texts, strict=True), strict=True))
        except (csv.Error, ValueError):
            # One of the lines is broken; only then is it worth going through them one by one.
            split: list[tuple[int, list[str]]] = []
            for row, text in zip(rows, texts, strict=True):
                try:
                    split.append((row, next(csv.reader([text], strict=True))))
                except (csv.Error, StopIteration):
                    rejects.append(Reject(self._part.uri, row, "", "broken_line", shorten(text)))
            return split


class _JsonLines:
    """Parser of one file of JSON lines. The first object's names are the file's columns."""

    def __init__(self, part: Part, check_columns: CheckColumns) -> None:
        self._part = part
        self._check_columns = check_columns
        self._checked = False

    def finish(self) -> None:
        """The file has ended; an empty one is no error by itself."""

    def parse(self, chunk: Lines, after_row: int) -> TextBatch | None:
        last = chunk.first + len(chunk.lines) - 1
        if last <= after_row:
            return None
        rejects: Rejects = []
        rows, texts = _decode(chunk, self._part, rejects, show=self._checked)
        kept: list[int] = []
        records: list[Record] = []
        for row, text in zip(rows, texts, strict=True):
            try:
                record = json.loads(text)
            except (ValueError, RecursionError):
                rejects.append(Reject(self._part.uri, row, "", "broken_json", self._raw(text)))
                continue
            if not isinstance(record, dict):
                rejects.append(Reject(self._part.uri, row, "", "not_an_object", self._raw(text)))
                continue
            if not self._checked:
                self._check_columns(list(record), self._part.uri)
                self._checked = True
            if row > after_row:
                kept.append(row)
                records.append(record)
        rejects = [reject for reject in rejects if reject.row > after_row]
        return TextBatch(self._part, kept, records, rejects, last)

    def _raw(self, text: str) -> str:
        """What the rejects file shows of a line: nothing before an object with the right columns has been seen, for
        then this may be no file of ours at all.
        """
        return shorten(text) if self._checked else ""


def _decode(chunk: Lines, part: Part, rejects: Rejects, *, show: bool) -> tuple[list[int], list[str]]:
    """Return the numbers and the texts of the lines that are not blank; ``show``: rejects may quote them."""
    lines = chunk.lines
    present = [line for line in lines if line]
    if len(present) == len(lines):
        try:
            return list(range(chunk.first, chunk.first + len(lines))), b"\n".join(present).decode().split("\n")
        except UnicodeDecodeError:
            pass  # below, line by line
    rows: list[int] = []
    texts: list[str] = []
    for row, line in enumerate(lines, chunk.first):
        if line is None:
            rejects.append(Reject(part.uri, row, "", "line_too_long", ""))
        elif line:
            try:
                texts.append(line.decode())
                rows.append(row)
            except UnicodeDecodeError:
                rejects.append(Reject(part.uri, row, "", "not_utf8", shorten(line) if show else ""))
    return rows, texts
