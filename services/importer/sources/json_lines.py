"""JSON lines: one object a line. The first object's names are the file's columns."""

from __future__ import annotations

from banditmesh.json_keys import Decoder
from services.importer.failure import Failure, ImportFailed, Reject, shorten
from services.importer.sources.parts import Part
from services.importer.sources.records import CheckColumns, NumberedLines, Record, TextBatch


class JsonLinesParser:
    """Parser of one file."""

    def __init__(self, part: Part, check_columns: CheckColumns) -> None:
        self._part = part
        self._check_columns = check_columns
        self._decoder = Decoder()
        self.known = False

    @property
    def quotable(self) -> bool:
        """Whether an object with the right columns has been seen."""
        return self.known

    def parse(self, lines: NumberedLines, *, final: bool) -> TextBatch | None:
        """Parse some lines. Raises ImportFailed."""
        rejects = lines.rejects
        kept: list[int] = []
        records: list[Record] = []
        for row, text in zip(lines.rows, lines.texts, strict=True):
            try:
                record = self._decoder.decode(text)
            except (ValueError, RecursionError):
                if row == 1 and text.strip() in ("[", "{"):
                    raise self._unreadable("is one JSON document over several lines; write one object a line") from None
                rejects.append(Reject(self._part.uri, row, "", "broken_json", self._raw(text)))
                continue
            if not isinstance(record, dict):
                rejects.append(Reject(self._part.uri, row, "", "not_an_object", self._raw(text)))
                continue
            if not self.known:
                self._check_columns(list(record), self._part.uri)
                if len(lines.rows) == 1 and all(isinstance(value, dict) for value in record.values()):
                    raise self._unreadable(
                        "is one object of columns; write one object a row, each on a line of its own "
                        '(pandas: to_json(orient="records", lines=True))'
                    )
                self.known = True
            if self._decoder.twice is not None:
                key = shorten(self._decoder.twice)
                rejects.append(Reject(self._part.uri, row, key, "key_twice", self._raw(text)))
                continue
            kept.append(row)
            records.append(record)
        return TextBatch(self._part, kept, records, rejects, lines.last)

    def _unreadable(self, problem: str) -> ImportFailed:
        return ImportFailed(Failure("unreadable_file", f"{self._part.uri} {problem}", file=self._part.uri))

    def _raw(self, text: str) -> str:
        """What the rejects file shows of a line: nothing before an object with the right columns has been seen, for
        then this may be no file of ours at all.
        """
        return shorten(text) if self.quotable else ""
