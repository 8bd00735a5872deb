"""Formats and compressions of files: by what the caller says, else by a file's ending, else by its first bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from banditmesh.lengths import MAX_NAME_BYTES

Format = Literal["parquet", "csv", "jsonl"]
Compression = Literal["gzip", "bz2", "zstd"]

_FORMATS: Mapping[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".parq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
COMPRESSIONS: Mapping[str, Compression] = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}
ENDINGS = f"{', '.join(_FORMATS)}, the texts among them also with {', '.join(COMPRESSIONS)}"
_MAGIC: Mapping[bytes, Compression] = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
_FOREIGN: Mapping[bytes, str] = {
    b"PAR1": "Parquet",
    b"PARE": "encrypted Parquet",
    b"ORC": "ORC",
    b"Obj\x01": "Avro",
    b"SEQ": "a Hadoop sequence file",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\xfd7zXZ": "compressed by xz",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"\xff\x06\x00\x00sNaPpY": "compressed by snappy",
    b"ARROW1": "an Arrow IPC (Feather) file",
    b"\xff\xff\xff\xff": "an Arrow IPC stream",
    b"\x80\x04\x95": "a Python pickle",
    b"\x80\x05\x95": "a Python pickle",
    b"\x89HDF": "HDF5",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
    b"7z\xbc\xaf": "a 7z archive",
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself",
    b"<!DOCTYPE": "an HTML page",
    b"<!doctype": "an HTML page",
    b"<html": "an HTML page",
    b"<?xml": "XML, which may be a store's message of an error",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_ENDING = re.compile(r"\.[a-z]{1,8}[0-9]?$")
_ENCODINGS = frozenset(
    (
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
        "iso8859-1",
        "iso8859-2",
        "iso8859-15",
        "cp1250",
        "cp1251",
        "cp1252",
        "cp932",
        "shift_jis",
        "euc_jp",
        "gbk",
        "gb18030",
        "big5",
        "cp949",
        "euc_kr",
        "koi8-r",
        "mac-roman",
    )
)
HEAD_BYTES = 64


@dataclass(frozen=True)
class CsvOptions:
    """How a CSV is written, where that is not by RFC 4180.

    Attributes:
        delimiter: Between columns; empty: a comma, in a ``.tsv`` a tab.
        list_separator: Between the items of a list.
        encoding: One that Python's codecs know.
        escape: Written before a quote inside quotes; empty: the quote is doubled.
        columns: The names, when the file has no header.
    """

    delimiter: str = ""
    list_separator: str = "|"
    encoding: str = "utf-8"
    escape: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileOptions:
    """What a caller says of the files beside their names.

    Attributes:
        format: Of all files; None: by their endings.
        csv: Of the CSVs among them.
    """

    format: Format | None = None
    csv: CsvOptions = field(default_factory=CsvOptions)


@dataclass(frozen=True)
class Named:
    """What a file's name says.

    Attributes:
        format: None when the name has no ending of ours.
        compression: None when it says none.
        tabs: Whether its columns are separated by tabs.
    """

    format: Format | None
    compression: Compression | None
    tabs: bool = False


def by_name(name: str) -> Named:
    """Read the ending of a file's name."""
    stem, compression = _uncompressed(name)
    found = next((each for ending, each in _FORMATS.items() if stem.endswith(ending)), None)
    return Named(found, compression, stem.endswith(".tsv"))


def has_foreign_ending(name: str) -> bool:
    """Whether a name that has no ending of ours has one of somebody else, such as ``.xml``; ``000000_0`` has none."""
    return _ENDING.search(_uncompressed(name)[0]) is not None


def _uncompressed(name: str) -> tuple[str, Compression | None]:
    """Return a name in lower case without the ending of a compression, and that."""
    for ending, compression in COMPRESSIONS.items():
        if name.lower().endswith(ending):
            return name.lower().removesuffix(ending), compression
    return name.lower(), None


def compression_of(head: bytes) -> Compression | None:
    """Tell by the first bytes of a file how it is compressed."""
    return next((each for magic, each in _MAGIC.items() if head.startswith(magic)), None)


def foreign(head: bytes) -> str:
    """Tell by the first bytes what a file is that is neither CSV nor JSON lines in UTF-8, in words; empty: it may be
    one.
    """
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            return what
    if compression := compression_of(head):
        return f"compressed by {compression}"
    if b"\x00" not in head:
        return ""
    # Latin letters in UTF-16 have a zero in every other byte.
    few, many = sorted((head[::2].count(0), head[1::2].count(0)))
    return "UTF-16" if many > len(head) // 4 and few < many // 4 else "binary"


def by_content(head: bytes) -> Format | None:
    """Tell by the first bytes, decompressed, which format a file without an ending has; None: it does not show."""
    if head.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" else None


def in_words(head: bytes) -> str:
    """Tell by the first bytes what a file is, in words; empty: they do not show it."""
    if not head:
        return "empty"
    if what := foreign(head):
        return what
    if by_content(head) == "jsonl":
        return "JSON"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut off
    except UnicodeDecodeError:
        return ""
    return "a text"


def encoding_problem(encoding: str) -> str:
    """Return why a text cannot be read in an encoding; empty: it can."""
    try:
        # Lengths first: the search takes time with them.
        known = len(encoding) <= MAX_NAME_BYTES and codecs.lookup(encoding).name in _ENCODINGS
    except (LookupError, ValueError):
        known = False
    return "" if known else f"must be one of {', '.join(sorted(_ENCODINGS))}"
