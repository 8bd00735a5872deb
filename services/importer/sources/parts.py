"""The parts of a mapping: one file, or the files of a folder in natural order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from services.importer.failure import Failure, ImportFailed
from services.importer.sources.files import Entry, EntryKind, Files
from services.importer.sources.filesystems import Location

Format = Literal["parquet", "csv", "jsonl"]
_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".json": "jsonl",
    ".json.gz": "jsonl",
}


@dataclass(frozen=True)
class Part:
    """One file.

    Attributes:
        name: What its file system calls it.
        uri: What people call it.
        format: By its ending.
        size: Bytes, compressed when it is.
        gzipped: Whether it is.
    """

    name: str
    uri: str
    format: Format
    size: int
    gzipped: bool


def list_parts(place: Files, location: Location) -> list[Part]:
    """Return the parts in the order in which they are read: that of numbers, so that part-10 comes after part-9.

    Files whose name starts with ``_`` or ``.`` (``_SUCCESS``, checksums) and sub-folders are left out.

    Raises:
        ImportFailed: ``file_not_found``, ``unreadable_file`` or ``unknown_format``.
    """
    uri = location.uri(location.name)
    try:
        found = place.entry(location.name)
        if found.kind is not EntryKind.FOLDER:
            return [_part(found, location)]
        children = place.children(location.name)
    except FileNotFoundError as error:
        raise ImportFailed(
            Failure("file_not_found", f"{uri} does not exist; check the uri and the importer's access to it", file=uri)
        ) from error
    except OSError as error:
        raise ImportFailed(Failure("unreadable_file", f"{uri} cannot be listed: {error}", file=uri)) from error
    files = [child for child in children if child.kind is not EntryKind.FOLDER and child.base_name[0] not in "_."]
    if not files:
        raise ImportFailed(
            Failure(
                "file_not_found", f"the folder {uri} holds no files (those starting with _ or . do not count)", file=uri
            )
        )
    return [_part(child, location) for child in sorted(files, key=lambda child: _natural(child.base_name))]


def digest(parts: Sequence[Part]) -> str:
    """Return what a resumed job compares, so that it never goes on in the middle of other files: a hash of names and
    sizes.
    """
    text = "\n".join(f"{part.name}\t{part.size}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _part(entry: Entry, location: Location) -> Part:
    uri = location.uri(entry.name)
    if entry.kind is not EntryKind.FILE:
        raise ImportFailed(Failure("unreadable_file", f"{uri} is {entry.kind}, not a file", file=uri))
    name = entry.base_name.lower()
    for ending in sorted(_FORMATS, key=len, reverse=True):
        if name.endswith(ending):
            return Part(entry.name, uri, _FORMATS[ending], entry.size, ending.endswith(".gz"))
    raise ImportFailed(
        Failure("unknown_format", f"{uri} has none of the endings {', '.join(_FORMATS)}; rename or remove it", file=uri)
    )


def _natural(name: str) -> list[tuple[int, str]]:
    pieces = re.split(r"(\d+)", name)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]
