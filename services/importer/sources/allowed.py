"""Which files may be imported: those below ``importing.allowed_uris``, and nothing that a symbolic link leads to
elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from banditmesh.runtime.errors import PermissionDenied
from services.importer.sources.filesystems import Location, parse_uri


class AllowedUris:
    """The prefixes below which files may be read.

    Without any prefix all of ``hdfs://`` and ``s3://`` is allowed, which the importer's own credentials bound, and no
    local file.
    """

    def __init__(self, prefixes: Sequence[str] | None, *, local_files: bool = False) -> None:
        """``prefixes``: URIs of folders or files; None: the default. ``local_files``: allow them by default too."""
        self._schemes = () if prefixes is not None else ("hdfs", "s3", "file") if local_files else ("hdfs", "s3")
        self._prefixes = [parse_uri(prefix, whole=True) for prefix in prefixes or ()]

    def check(self, location: Location) -> None:
        """Raise PermissionDenied unless what a location names may be read."""
        if location.scheme in self._schemes or any(_is_below(location, prefix) for prefix in self._prefixes):
            return
        raise PermissionDenied(
            f"{location.uri(location.name)} is not below importing.allowed_uris of mesh.yaml",
            field="uri",
            hint=f"allowed: {self}",
        )

    def holds(self, path: str) -> bool:
        """Whether a local path, its symbolic links resolved, is allowed; a prefix may be a link itself."""
        return "file" in self._schemes or any(
            prefix.scheme == "file" and _is_under(path, os.path.realpath(prefix.path)) for prefix in self._prefixes
        )

    def __str__(self) -> str:
        names = [f"{scheme}://" for scheme in self._schemes] + [prefix.uri(prefix.name) for prefix in self._prefixes]
        return ", ".join(names) or "nothing"


def _is_below(location: Location, prefix: Location) -> bool:
    same_place = (location.scheme, location.host.lower()) == (prefix.scheme, prefix.host.lower())
    return same_place and _is_under("/" + location.path, "/" + prefix.path)


def _is_under(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)
