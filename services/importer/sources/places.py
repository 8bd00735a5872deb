"""Where a URI leads: a local disk, S3 or HDFS, each only as far as it is allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pyarrow import fs

from services.importer.sources.allowed import AllowedUris
from services.importer.sources.files import ArrowFiles, Entry, Files, LocalFiles
from services.importer.sources.filesystems import Location, S3Access, open_filesystem
from services.importer.sources.hdfs import check_namenodes, unavailable

T = TypeVar("T")
HDFS_ANSWER_S = 5.0
HDFS_LISTING_S = 60.0


@dataclass(frozen=True)
class FileAccess:
    """How the importer reaches files.

    Attributes:
        s3: Endpoint and region.
        allowed: What may be read.
    """

    s3: S3Access
    allowed: AllowedUris

    def place_of(self, location: Location) -> Files:
        """Return the place where a location lies.

        Raises:
            PermissionDenied: It is not allowed.
            ImportFailed: ``source_unavailable``, within seconds.
        """
        self.allowed.check(location)
        if location.scheme == "file":
            return LocalFiles(self.allowed, location.uri)
        if location.scheme == "hdfs":
            check_namenodes(location.host)
            return HdfsFiles(open_filesystem(location, self.s3), location.host)
        return ArrowFiles(open_filesystem(location, self.s3))


class HdfsFiles(ArrowFiles):
    """HDFS, whose client tries for minutes what cannot succeed: it is given seconds."""

    def __init__(self, filesystem: fs.FileSystem, host: str) -> None:
        super().__init__(filesystem)
        self._host = host

    def entry(self, name: str) -> Entry:
        """Return what is behind a name."""
        return self._within(HDFS_ANSWER_S, lambda: super(HdfsFiles, self).entry(name))

    def children(self, name: str) -> list[Entry]:
        """Return what a folder holds."""
        return self._within(HDFS_LISTING_S, lambda: super(HdfsFiles, self).children(name))

    def _within(self, seconds: float, work: Callable[[], T]) -> T:
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
            raise failed[0]
        if not done:
            raise unavailable(
                self._host,
                f"its NameNode did not answer within {seconds:g} s; check that it is active, and the importer's "
                "credentials (a Kerberos ticket may have run out)",
            )
        return done[0]
