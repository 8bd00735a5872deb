"""Where a URI leads: a local disk, S3 or HDFS, each only as far as it is allowed."""

from __future__ import annotations

from dataclasses import dataclass

from services.importer.sources.allowed import AllowedUris
from services.importer.sources.files import ArrowFiles, Files, LocalFiles
from services.importer.sources.filesystems import Location, S3Access, open_filesystem
from services.importer.sources.hdfs import check_namenodes
from services.importer.sources.hdfs_files import HdfsFiles


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
