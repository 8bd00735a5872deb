"""CSV: a header, then rows, with quotes by RFC 4180, line breaks inside quotes included; how the columns are separated
may be said.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice, pairwise

from banditmesh.duplicates import first_twice
from services.importer.failure import ImportFailed, Reject, shorten
from services.importer.sources.formats import CsvOptions
from services.importer.sources.lines import MAX_LINE_BYTES
from services.importer.sources.parts import Part
from services.importer.sources.records import CheckColumns, NumberedLines, Record, TextBatch, wrong_column

csv.field_size_limit(MAX_LINE_BYTES)
MAX_QUOTED_LINES = 1000
"""A quote that is still open after so many lines was not meant to hold them."""
_OTHER_DELIMITERS = {";": "';'", "\t": "tabs", "|": "'|'", ",": "commas", "\x01": "'\\u0001'"}


class DelimitedParser:
    """Parser of one file."""

    def __init__(self, part: Part, check_columns: CheckColumns, options: CsvOptions) -> None:
        self._part = part
        self._check_columns = check_columns
        self._escape = options.escape
        self._header: list[str] | None = None
        self._rows: list[int] = []
        self._texts: list[str] = []
        self._fits = False
        if options.columns:
            self._header = self._checked(list(options.columns))

    @property
    def known(self) -> bool:
        """Whether there is a header, the file's own or the caller's, and it is right."""
        return self._header is not None

    @property
    def quotable(self) -> bool:
        """Whether the file's own header is right, or a row of it has fitted the caller's."""
        return self._fits

    def parse(self, lines: NumberedLines, *, final: bool) -> TextBatch | None:
        """Parse some lines. Raises ImportFailed."""
        rows, texts = self._rows + lines.rows, self._texts + lines.texts
        self._rows, self._texts = [], []
        if self._header is None:
            if lines.rejects and (not rows or lines.rejects[0].row < rows[0]):
                raise self._no_header(lines.rejects[0].reason)
            if not texts:
                return None
            self._header = self._read_header(texts[0])
            self._fits = True
            rows, texts = rows[1:], texts[1:]
        rejects = lines.rejects
        kept: list[int] = []
        records: list[Record] = []
        for row, values in self._split(rows, texts, rejects, final=final):
            if not any(values):  # a blank line, as Excel writes one for cells that were once used: ;;;
                continue
            if len(values) == len(self._header):
                self._fits = True
                records.append(dict(zip(self._header, values, strict=True)))
                kept.append(row)
            else:
                raw = self._shown(",".join(values))
                rejects.append(Reject(self._part.uri, row, "", "wrong_number_of_columns", raw))
        # A line that waits for the next ones has not been read yet.
        return TextBatch(self._part, kept, records, rejects, self._rows[0] - 1 if self._rows else lines.last)

    def _no_header(self, reason: str) -> ImportFailed:
        """What is wrong with a first line that is no text."""
        if reason == "line_too_long":
            return wrong_column(self._part.uri, "the first line is longer than 1 MiB; it should name the columns")
        return wrong_column(
            self._part.uri,
            "the header is not in UTF-8: save the file as 'CSV UTF-8', or notify with its encoding, such as "
            'csv: {"encoding": "cp1252"}',
        )

    def _read_header(self, text: str) -> list[str]:
        if text.lower().startswith("sep="):
            raise wrong_column(
                self._part.uri, "the first line is Excel's sep=: remove it, and notify with csv.delimiter"
            )
        if "\r" in text:
            raise wrong_column(self._part.uri, "the lines end with a carriage return alone; write LF or CR LF")
        try:
            (header,) = self._reader([text])
        except (csv.Error, ValueError) as error:
            raise wrong_column(self._part.uri, f"the header cannot be read: {error}") from error
        if len(header) == 1:
            for delimiter, called in _OTHER_DELIMITERS.items():
                names = [name.strip().strip('"') for name in text.split(delimiter)]
                if len(names) > 1 and "user_id" in names:
                    advice = (
                        f'notify with csv: {{"delimiter": "{delimiter if delimiter > " " else repr(delimiter)[1:-1]}"}}'
                    )
                    raise wrong_column(self._part.uri, f"the columns are separated by {called}; {advice}")
        return self._checked([name.strip() for name in header])

    def _checked(self, header: list[str]) -> list[str]:
        twice = first_twice(filter(None, header))
        if twice is not None and "user_id" in header:
            raise wrong_column(self._part.uri, f"the column {shorten(twice)!r} stands twice in the header", twice)
        unnamed = [place for place, name in enumerate(header, 1) if not name and place > 1]
        if unnamed and "user_id" in header:
            problem = (
                f"column {unnamed[0]} has no name in the header; Excel writes such for cells that were once used: "
            )
            raise wrong_column(self._part.uri, problem + "delete the columns, or name them")
        self._check_columns(header, self._part.uri)
        return header

    def _split(
        self, rows: list[int], texts: list[str], rejects: list[Reject], *, final: bool
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield the values of each row. The common case, rows of one line each, is parsed at once."""
        odd = [i for i, text in enumerate(texts) if "\r" in text or ('"' in text and self._quotes(text) & 1)]
        at = 0
        for i in [*odd, len(texts)]:
            if i < at:  # inside the quotes of a row that has been read
                continue
            yield from self._whole_lines(rows[at:i], texts[at:i], rejects)
            at = i
            if i == len(texts):
                return
            if "\r" in texts[i]:
                rejects.append(Reject(self._part.uri, rows[i], "", "stray_carriage_return", self._shown(texts[i])))
                at = i + 1
                continue
            values, end = self._quoted(rows, texts, i)
            if values is not None:
                yield rows[i], values
                at = end
            elif end < len(texts) or final:
                rejects.append(Reject(self._part.uri, rows[i], "", "open_quote", self._shown(texts[i])))
                at = i + 1
            else:
                self._rows, self._texts = rows[i:], texts[i:]
                return

    def _quoted(self, rows: list[int], texts: list[str], start: int) -> tuple[list[str] | None, int]:
        """Read a row whose quotes go on over several lines.

        Returns:
            Its values and the index of the line behind it. None when it is no such row; the index is the number of
            lines then if more of them might make it one.
        """
        quotes = size = 0
        for end, text in islice(enumerate(texts, 1), start, start + MAX_QUOTED_LINES):
            quotes += self._quotes(text)
            size += len(text) + 1
            if size > MAX_LINE_BYTES:
                return None, start
            if end > start + 1 and quotes % 2 == 0:
                try:
                    # Blank lines are not among the texts; inside quotes they count.
                    gaps = [after - row for row, after in pairwise([*rows[start:end], rows[end - 1] + 1])]
                    lines = [line + gap * "\n" for line, gap in zip(texts[start:end], gaps, strict=True)]
                    found = list(self._reader(["".join(lines)]))
                except csv.Error:
                    return None, start
                # Two stray quotes would swallow the rows between them, which does not give a row of this width.
                fits = len(found) == 1 and self._header is not None and len(found[0]) == len(self._header)
                return (found[0], end) if fits else (None, start)
        return None, len(texts) if len(texts) - start < MAX_QUOTED_LINES else start

    def _whole_lines(self, rows: list[int], texts: list[str], rejects: list[Reject]) -> Iterator[tuple[int, list[str]]]:
        try:
            yield from list(zip(rows, self._reader(texts), strict=True))
        except (csv.Error, ValueError):
            # One of the lines is broken; only then is it worth going through them one by one.
            for row, text in zip(rows, texts, strict=True):
                try:
                    (values,) = self._reader([text])
                except (csv.Error, ValueError):
                    rejects.append(Reject(self._part.uri, row, "", "broken_line", self._shown(text)))
                else:
                    yield row, values

    def _reader(self, texts: list[str]) -> Iterator[list[str]]:
        escape = self._escape or None
        return csv.reader(
            texts, strict=True, delimiter=self._part.delimiter, escapechar=escape, doublequote=escape is None
        )

    def _shown(self, text: str) -> str:
        """What a reject quotes."""
        return shorten(text) if self._fits else ""

    def _quotes(self, text: str) -> int:
        return text.count('"') - (text.count(self._escape + '"') if self._escape else 0)
