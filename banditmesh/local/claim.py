"""One mesh a folder: a lock that the kernel lets go of when its process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from banditmesh.local.process import DidNotStart

_NOT_USABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Turn what a folder that is read-only, full or none at all raises inside into one line.

    Raises:
        DidNotStart: It says which folder, and why.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_USABLE:
            raise
        where = f" ({error.filename})" if error.filename and error.filename != str(folder) else ""
        raise DidNotStart(
            "the mesh", f"{folder} cannot be used: {error.strerror}{where}; choose another --dir"
        ) from error


class Claim:
    """Holds a folder for this process.

    Args:
        folder: It exists, or is made.

    Raises:
        DidNotStart: Another process, or another claim of this one, holds it; says which.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # data of users, logs and keys
        self._file: IO[str] = (folder / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise DidNotStart(
                "the mesh",
                f"another one runs on {folder} already (process {holder or 'unknown'}); stop that one, or choose "
                "another --dir",
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let others have the folder."""
        self._file.close()
