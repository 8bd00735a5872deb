"""Files on HDFS, whose client tries for minutes what cannot succeed: it is given seconds.

``hdfs-native`` 0.14.7 raises RuntimeError when a NameNode or the DataNodes of a block go away, and nothing at all when
they hang. Here both are ``source_unavailable``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from banditmesh.runtime.errors import printable
from services.importer.failure import ImportFailed, shorten
from services.importer.sources.files import ArrowFiles, Entry
from services.importer.sources.hdfs import unavailable

T = TypeVar("T")
ANSWER_S = 5.0
LISTING_S = 60.0
READ_S = 30.0
_NAMENODE = "its NameNode did not answer within {:g} s; check that it is active, and the importer's credentials (a "
_NAMENODE += "Kerberos ticket may have run out)"
_DATANODE = "a DataNode did not send within {:g} s what is read"


class HdfsFiles(ArrowFiles):
    """Files of one HDFS."""

    def __init__(self, filesystem: fs.FileSystem, host: str, *, read_s: float = READ_S) -> None:
        """``read_s``: what one read of a file may take."""
        super().__init__(filesystem)
        self._host = host
        self._read_s = read_s

    def entry(self, name: str) -> Entry:
        """Return what is behind a name."""
        return self._within(ANSWER_S, lambda: super(HdfsFiles, self).entry(name), _NAMENODE)

    def children(self, name: str) -> list[Entry]:
        """Return what a folder holds."""
        return self._within(LISTING_S, lambda: super(HdfsFiles, self).children(name), _NAMENODE)

    def open(self, name: str) -> pa.NativeFile:
        """Open a file; what is read of it has a deadline, too."""
        file = self._within(ANSWER_S, lambda: super(HdfsFiles, self).open(name), _NAMENODE)
        return pa.PythonFile(_HdfsFile(file, self._read), mode="r")

    def _read(self, read: Callable[[], bytes]) -> bytes:
        return self._within(self._read_s, read, _DATANODE)

    def _within(self, seconds: float, work: Callable[[], T], silent: str) -> T:
        """What ``work`` returns. Raises ImportFailed: it failed, or was ``silent`` for too long."""
        done: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                done.append(work())
            except BaseException as error:
                failed.append(error)

        # A daemon: nothing stops the client, and the process must not wait for it.
        thread = threading.Thread(target=run, name=f"hdfs://{self._host}", daemon=True)
        thread.start()
        thread.join(seconds)
        if failed:
            raise self._typed(failed[0])
        if not done:
            raise unavailable(self._host, silent.format(seconds))
        return done[0]

    def _typed(self, error: BaseException) -> BaseException:
        if not isinstance(error, RuntimeError):
            return error
        failed: ImportFailed = unavailable(self._host, shorten(printable(str(error))))
        failed.__cause__ = error
        return failed


class _HdfsFile:
    """What pyarrow wants of a Python file, each read within its time."""

    def __init__(self, file: pa.NativeFile, read: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._file = file
        self._read = read

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def read(self, nbytes: int) -> bytes:
        return self._read(lambda: bytes(self._file.read(nbytes)))

    def seek(self, position: int, whence: int = 0) -> int:
        return int(self._file.seek(position, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
