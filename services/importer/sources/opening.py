"""Opening files: decompressed, in UTF-8, and only if they are what their names say."""

from __future__ import annotations

import codecs
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa

from services.importer.failure import Failure, ImportFailed, unread
from services.importer.sources import formats
from services.importer.sources.files import Files
from services.importer.sources.formats import HEAD_BYTES, Compression, CsvOptions
from services.importer.sources.lines import Readable

if TYPE_CHECKING:
    from services.importer.sources.parts import Part

_BLOCK = 1 << 16
_ARRAY = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*\{")


def open_file(place: Files, name: str, uri: str) -> pa.NativeFile:
    """Open a file.

    Raises:
        ImportFailed: ``file_not_found``, ``unreadable_file`` or ``not_allowed``.
    """
    try:
        return place.open(name)
    except FileNotFoundError as error:
        raise ImportFailed(
            Failure("file_not_found", f"{uri} was there when the folder was listed and is gone", file=uri)
        ) from error
    except (OSError, pa.ArrowInvalid) as error:  # the latter: a key that is no path to pyarrow
        raise unread(uri, "cannot be opened", error) from error


def open_text(place: Files, part: Part, csv: CsvOptions, stack: ExitStack) -> Readable:
    """Open a CSV or JSON lines; what is read is decompressed and in UTF-8. ``stack`` closes it.

    Raises:
        ImportFailed: ``file_not_found``, or ``unreadable_file`` with what the file is instead.
    """
    raw = _Peeked(stack.enter_context(open_file(place, part.name, part.uri)))
    found = formats.compression_of(raw.head)
    if part.compression and raw.head and found != part.compression:
        raise _unreadable(part.uri, f"is not compressed by {part.compression}, though its name says so")
    encoding = codecs.lookup(csv.encoding).name if part.format == "csv" else "utf-8"
    wide = encoding.startswith(("utf-16", "utf-32"))
    text = raw
    if part.compression:
        stream = pa.CompressedInputStream(pa.PythonFile(_AsFile(raw), mode="r"), part.compression)
        try:
            text = _Peeked(stack.enter_context(stream))
        except (OSError, EOFError) as error:
            raise unread(part.uri, "cannot be read", error) from error
    what = formats.foreign(text.head)
    if what and not wide:
        raise _unreadable(part.uri, _instead(what, part, found if text is raw else None))
    if problem := _another_text(text.head, part, csv):
        raise _unreadable(part.uri, problem)
    return text if encoding in ("utf-8", "utf-8-sig") else _InUtf8(text, encoding)


def head_of(place: Files, name: str, uri: str) -> tuple[bytes, bytes]:
    """Return the first bytes of a file, as they are and decompressed. Raises ImportFailed."""
    with open_file(place, name, uri) as file:
        peeked = _Peeked(file)
        compression = formats.compression_of(peeked.head)
        if compression is None:
            return peeked.head, peeked.head
        try:
            with pa.CompressedInputStream(pa.PythonFile(_AsFile(peeked), mode="r"), compression) as text:
                return peeked.head, text.read(HEAD_BYTES)
        except (OSError, EOFError) as error:
            raise unread(uri, "cannot be read", error) from error


def _another_text(head: bytes, part: Part, csv: CsvOptions) -> str:
    """What is wrong with a text that is one, and not what its name says; empty: nothing."""
    if part.format == "csv":
        is_json = not csv.columns and formats.by_content(head) == "jsonl"
        return "is JSON, not CSV: the name of JSON lines must end with .jsonl" if is_json else ""
    if _ARRAY.match(head):
        return (
            "is one JSON array; write one object a line, without brackets and commas around them "
            '(pandas: to_json(orient="records", lines=True))'
        )
    return ""


def _instead(what: str, part: Part, compression: Compression | None) -> str:
    """What a file is that should be a text, and what to do about it."""
    if compression:
        ending = next(ending for ending, each in formats.COMPRESSIONS.items() if each == compression)
        return f"is compressed by {compression}: its name must end with {ending}"
    if what == "UTF-16":
        advice = ', or notify with csv: {"encoding": "utf-16"}' if part.format == "csv" else ""
        return f"is UTF-16, as Excel's 'Unicode Text' is: write it in UTF-8 ('CSV UTF-8'){advice}"
    if what == "Parquet":
        return "is Parquet: its name must end with .parquet"
    return f"is {what}, not {'CSV' if part.format == 'csv' else 'JSON lines'}; write it as Parquet, CSV or JSON lines"


def _unreadable(uri: str, problem: str) -> ImportFailed:
    return ImportFailed(Failure("unreadable_file", f"{uri} {problem}", file=uri))


class _Peeked:
    """A stream whose first bytes are known before it is read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.head = b""
        while len(self.head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(self.head))):
            self.head += more
        self._left = self.head

    def read(self, nbytes: int) -> bytes:
        if self._left:
            first, self._left = self._left[:nbytes], self._left[nbytes:]
            return first + self._stream.read(nbytes - len(first)) if len(first) < nbytes else first
        return self._stream.read(nbytes)


class _AsFile:
    """What pyarrow wants of a Python file."""

    closed = False

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def read(self, nbytes: int = _BLOCK) -> bytes:
        return self._stream.read(nbytes)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Whoever opened the stream closes it."""


class _InUtf8:
    """A text in another encoding, as UTF-8. What cannot be decoded becomes a byte that is no UTF-8, so that the line
    in which it stands is rejected and no other.
    """

    def __init__(self, stream: Readable, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_BROKEN)
        self._ended = False

    def read(self, nbytes: int) -> bytes:
        while not self._ended:
            block = self._stream.read(nbytes)
            self._ended = not block
            try:
                text = self._decoder.decode(block, final=self._ended)
            except UnicodeError as error:  # a byte order mark that is missing
                raise OSError(str(error)) from error
            if text:
                return text.removeprefix("\ufeff").encode(errors="surrogateescape")
        return b""


_BROKEN = "banditmesh-broken-text"
codecs.register_error(_BROKEN, lambda error: ("\udcff", error.end))  # type: ignore[attr-defined] # a UnicodeDecodeError
