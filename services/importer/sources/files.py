"""Files and folders of one place (a local disk, S3, HDFS), with what every place must say of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import pyarrow as pa
from pyarrow import fs

from services.importer.failure import Failure, ImportFailed
from services.importer.sources.allowed import AllowedUris


class EntryKind(StrEnum):
    """What a name stands for; the value is what it is called in messages."""

    FILE = "a file"
    FOLDER = "a folder"
    FIFO = "a FIFO"
    SOCKET = "a socket"
    DEVICE = "a device"


@dataclass(frozen=True)
class Entry:
    """What is behind a name.

    Attributes:
        name: What its place calls it.
        kind: What it is.
        size: Bytes of a file.
    """

    name: str
    kind: EntryKind
    size: int = 0

    @property
    def base_name(self) -> str:
        """The last component of its name."""
        return self.name.rstrip("/").rpartition("/")[2]


class Files(Protocol):
    """A place where files lie. Every method raises OSError, FileNotFoundError among them, or ImportFailed."""

    def entry(self, name: str) -> Entry:
        """Return what is behind a name."""
        ...

    def children(self, name: str) -> list[Entry]:
        """Return what a folder holds, in any order."""
        ...

    def open(self, name: str) -> pa.NativeFile:
        """Open a file to be read at any position."""
        ...


def is_left_out(base_name: str) -> bool:
    """Whether a name says that it is no data: ``_SUCCESS``, ``_temporary``, checksums, Hadoop's markers of folders on
    S3 (``sub_$folder$``), keys that end with two slashes; but ``_date=…`` is a partition.
    """
    return base_name.endswith("_$folder$") or (base_name[:1] in "_." and "=" not in base_name)


class ArrowFiles:
    """S3 and HDFS, through pyarrow."""

    def __init__(self, filesystem: fs.FileSystem) -> None:
        self._filesystem = filesystem

    def entry(self, name: str) -> Entry:
        """Return what is behind a name."""
        info = self._filesystem.get_file_info(name)
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(name)
        return _entry_of(info)

    def children(self, name: str) -> list[Entry]:
        """Return what a folder holds."""
        return [_entry_of(info) for info in self._filesystem.get_file_info(fs.FileSelector(name))]

    def open(self, name: str) -> pa.NativeFile:
        """Open a file."""
        return self._filesystem.open_input_file(name)


class LocalFiles:
    """The local disk, as far as it is allowed: a symbolic link that leads elsewhere is an error that names the link."""

    def __init__(self, allowed: AllowedUris, uri: Callable[[str], str]) -> None:
        """``uri`` makes the URI of a path."""
        self._allowed = allowed
        self._uri = uri

    def entry(self, name: str) -> Entry:
        """Return what is behind a name."""
        self._check(name, os.path.realpath(name))
        status = os.stat(name)
        return Entry(name, _kind(status.st_mode), status.st_size)

    def children(self, name: str) -> list[Entry]:
        """Return what a folder holds. Of what is left out by its name nothing is known but the name."""
        return [
            Entry(path, EntryKind.FILE) if is_left_out(child) else self._child(path)
            for child in os.listdir(name)
            if (path := os.path.join(name, child))
        ]

    def _child(self, path: str) -> Entry:
        try:
            return self.entry(path)
        except FileNotFoundError as error:
            uri = self._uri(path)
            what = "is a symbolic link that leads nowhere" if os.path.islink(path) else "is gone again"
            raise ImportFailed(Failure("unreadable_file", f"{uri} {what}", file=uri)) from error

    def open(self, name: str) -> pa.NativeFile:
        """Open a file; what was opened is checked, not what the name stood for a moment ago."""
        # Without O_NONBLOCK opening a FIFO waits for somebody to write into it.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(descriptor, "rb")
        try:
            self._check(name, _path_of(descriptor, name))
            kind = _kind(os.fstat(descriptor).st_mode)
            if kind is not EntryKind.FILE:
                raise OSError(f"it is {kind}, not a file")
        except BaseException:
            file.close()
            raise
        return pa.PythonFile(file, mode="r")

    def _check(self, name: str, real: str) -> None:
        if not self._allowed.holds(real):
            uri = self._uri(name)
            raise ImportFailed(
                Failure("not_allowed", f"{uri} leads by a symbolic link out of importing.allowed_uris", file=uri)
            )


def _entry_of(info: fs.FileInfo) -> Entry:
    kind = EntryKind.FOLDER if info.type == fs.FileType.Directory else EntryKind.FILE
    return Entry(info.path, kind, info.size or 0)


def _kind(mode: int) -> EntryKind:
    for fits, kind in (
        (stat.S_ISREG, EntryKind.FILE),
        (stat.S_ISDIR, EntryKind.FOLDER),
        (stat.S_ISFIFO, EntryKind.FIFO),
        (stat.S_ISSOCK, EntryKind.SOCKET),
    ):
        if fits(mode):
            return kind
    return EntryKind.DEVICE


def _path_of(descriptor: int, name: str) -> str:
    """Return where an open file really lies; where the system does not tell, where its name leads now."""
    link = f"/proc/self/fd/{descriptor}"
    return os.readlink(link) if os.path.islink(link) else os.path.realpath(name)
