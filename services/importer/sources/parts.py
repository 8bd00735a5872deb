"""The parts of a mapping: one file, or the files of a folder and its partitions in natural order.

Files and folders whose names start with ``_`` or ``.`` (``_SUCCESS``, ``_temporary``, checksums) are left out. A folder
named ``key=value`` is a partition, as Hive, Spark and Trino write them; what is in other folders is not read, and a
warning says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa

from services.importer.failure import Failure, ImportFailed, JobWarning, unread
from services.importer.sources import formats
from services.importer.sources.files import Entry, EntryKind, Files, is_left_out
from services.importer.sources.filesystems import Location
from services.importer.sources.formats import Compression, FileOptions, Format
from services.importer.sources.opening import head_of

MAX_DEPTH = 16
MAX_PARTS = 100_000
_PARTITION = re.compile(r"([^=]+)=(.*)")
_TABLES = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}
_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Part:
    """One file.

    Attributes:
        name: What its file system calls it.
        uri: What people call it.
        format: How it is to be read.
        size: Bytes, compressed when it is.
        compression: How it is compressed, None when it is not (or by itself, as Parquet is).
        partition: Columns that its folders name, with their values; None for null.
        delimiter: Between the columns of a CSV.
    """

    name: str
    uri: str
    format: Format
    size: int
    compression: Compression | None = None
    partition: tuple[tuple[str, str | None], ...] = ()
    delimiter: str = ","


@dataclass(frozen=True)
class Listing:
    """What a URI leads to.

    Attributes:
        parts: In the order in which they are read: that of numbers, so that part-10 comes after part-9.
        warnings: What was left out.
    """

    parts: list[Part]
    warnings: list[JobWarning]


def list_parts(place: Files, location: Location, options: FileOptions) -> Listing:
    """List the parts.

    Raises:
        ImportFailed: ``file_not_found``, ``unreadable_file``, ``unknown_format`` or ``not_allowed``.
    """
    uri = location.uri(location.name)
    warnings: list[JobWarning] = []
    try:
        found = place.entry(location.name)
        single = found.kind is not EntryKind.FOLDER
        entries = [found] if single else _files(place, location, location.name, warnings, MAX_DEPTH)
        full = [entry for entry in entries if entry.size or entry.kind is not EntryKind.FILE]
        if full:  # else it is their emptiness that the job is going to fail for
            empty = [entry for entry in entries if entry not in full]
            warnings += [
                JobWarning("empty_file", f"{location.uri(entry.name)} is empty", location.uri(entry.name))
                for entry in empty
            ]
        start = len(location.name.rstrip("/")) + 1
        ordered = sorted(full or entries, key=lambda entry: _natural(entry.name[start:]))
        parts = [_part(place, location, entry, options) for entry in ordered]
    except FileNotFoundError as error:
        raise ImportFailed(
            Failure("file_not_found", f"{uri} does not exist; check the uri and the importer's access to it", file=uri)
        ) from error
    except (OSError, pa.ArrowInvalid) as error:  # the latter: a key that is no path to pyarrow
        raise unread(uri, "cannot be listed", error) from error
    if not parts:
        others = f"; {warnings[0].message}" if warnings else ""
        raise ImportFailed(
            Failure(
                "file_not_found",
                f"the folder {uri} holds no files (those starting with _ or . do not count){others}",
                file=uri,
            )
        )
    return Listing(parts, warnings)


def digest(parts: Sequence[Part]) -> str:
    """Return what a resumed job compares, so that it never goes on in the middle of other files: a hash of names and
    sizes.
    """
    text = "\n".join(f"{part.name}\t{part.size}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def partition_warnings(parts: Sequence[Part]) -> list[JobWarning]:
    """Return a warning for each part whose folders name columns, for files that cannot have such."""
    return [
        JobWarning(
            "partition_column_ignored", f"{part.uri}: {part.partition[0][0]} is no column of a mapping", part.uri
        )
        for part in parts
        if part.partition
    ]


def _files(place: Files, location: Location, folder: str, warnings: list[JobWarning], depth: int) -> list[Entry]:
    """Return the files of a folder and of its partitions."""
    found: list[Entry] = []
    children = place.children(folder)
    _check_markers({child.base_name for child in children}, location.uri(folder), warnings)
    for child in children:
        uri = location.uri(child.name)
        if is_left_out(child.base_name):
            continue
        partition = child.kind is EntryKind.FOLDER and _PARTITION.fullmatch(child.base_name)
        if child.kind is not EntryKind.FOLDER:
            found.append(child)
        elif not partition:
            warnings.append(JobWarning("subfolder_ignored", f"{uri} is no partition (key=value): not read", uri))
        elif not depth:
            raise ImportFailed(
                Failure("unreadable_file", f"{uri} lies more than {MAX_DEPTH} partitions deep", file=uri)
            )
        else:
            found += _files(place, location, child.name, warnings, depth - 1)
        if len(found) > MAX_PARTS:
            uri = location.uri(location.name)
            raise ImportFailed(Failure("unreadable_file", f"{uri} holds more than {MAX_PARTS} files", file=uri))
    return found


def _check_markers(names: set[str], uri: str, warnings: list[JobWarning]) -> None:
    """Look at what says something of a folder as a whole. Raises ImportFailed for the folder of a table format."""
    for marker, called in _TABLES.items():
        if marker in names:
            raise ImportFailed(
                Failure(
                    "unknown_format",
                    f"{uri} is a {called} table, whose folder holds files of older versions too; write plain Parquet",
                    file=uri,
                )
            )
    if "_temporary" in names and "_SUCCESS" not in names:
        message = f"{uri} holds _temporary and no _SUCCESS: whoever writes it may not have ended"
        warnings.append(JobWarning("unfinished_folder", message, uri))


def _part(place: Files, location: Location, entry: Entry, options: FileOptions) -> Part:
    uri = location.uri(entry.name)
    if entry.kind is not EntryKind.FILE:
        raise ImportFailed(Failure("unreadable_file", f"{uri} is {entry.kind}, not a file", file=uri))
    named = formats.by_name(entry.base_name)
    file_format, compression = options.format or named.format, named.compression
    if named.format is None and not (options.format is None and formats.has_foreign_ending(entry.base_name)):
        raw, text = head_of(place, entry.name, uri)
        compression = formats.compression_of(raw)
        file_format = file_format or formats.by_content(text)
    if file_format is None:
        raise _unknown_format(uri, head_of(place, entry.name, uri)[1])
    if file_format == "parquet" and compression:
        raise ImportFailed(
            Failure("unreadable_file", f"{uri} is Parquet in {compression}; Parquet compresses by itself", file=uri)
        )
    delimiter = options.csv.delimiter or ("\t" if named.tabs else ",")
    partition = _partition(entry.name, location.name)
    return Part(entry.name, uri, file_format, entry.size, compression, partition, delimiter)


def _unknown_format(uri: str, head: bytes) -> ImportFailed:
    what = formats.in_words(head)
    if what == "Parquet":
        message = f"{uri} is Parquet: its name must end with .parquet, or notify with its format"
    elif what in ("", "empty", "a text", "JSON"):
        shown = f"it is {what}" if what else "its first bytes do not show what it is"
        advice = "rename or remove it, or notify with its format"
        message = f"{uri} has none of the endings {formats.ENDINGS}, and {shown}; {advice}"
    else:
        message = f"{uri} is {what}; remove it, or write it as Parquet, CSV or JSON lines"
    return ImportFailed(Failure("unknown_format", message, file=uri))


def _partition(name: str, root: str) -> tuple[tuple[str, str | None], ...]:
    """Return the columns that the folders between a file and the URI name; values are escaped as in a URL."""
    folders = name[len(root.rstrip("/")) + 1 :].split("/")[:-1]
    pairs = [found.groups() for folder in folders if (found := _PARTITION.fullmatch(folder))]
    return tuple((unquote(key), None if value == _NULL else unquote(value)) for key, value in pairs)


def _natural(name: str) -> list[tuple[int, str]]:
    pieces = re.split(r"(\d+)", name)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]
