"""The files that commands write: whole or not at all, and known to be writable before the work, not after it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

from banditmesh.runtime.errors import InvalidArgument
from banditmesh.runtime.store.durable import appearing

_DOES_NOT_FIT: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_output(path: Path, field: str) -> None:
    """Raises InvalidArgument when a file of this name cannot be made, nor replaced. ``field``: the option's name."""
    why = None
    if path.is_dir():
        why = "is a folder; name a file in it"
    elif not path.absolute().parent.is_dir():
        why = "the folder does not exist"
    elif _is_special(path):
        why = None if os.access(path, os.W_OK) else "cannot be written to"
    elif not os.access(path.resolve().parent, os.W_OK):
        why = f"{path.resolve().parent} is a folder that we may not write to"
    if why is not None:
        raise InvalidArgument(why, field=field, value=str(path))


@contextmanager
def output(path: Path, field: str) -> Iterator[IO[bytes]]:
    """A file that has its name once it is whole; when the block ends badly, what was there stays.

    A pipe or a device (``/dev/stdout``) is written to as it is, and never replaced.

    Raises:
        InvalidArgument: As :func:`check_output`.
        OSError: It does not fit; with its name.
    """
    check_output(path, field)
    try:
        if _is_special(path):
            with path.open("wb") as file:
                yield file
            return
        with _replacing(path.resolve(), field) as file:  # of a link, what it leads to
            yield file
    except OSError as error:
        if error.errno in _DOES_NOT_FIT and error.filename is None:  # a write that fails names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def _replacing(path: Path, field: str) -> Iterator[IO[bytes]]:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    with ExitStack() as stack:
        try:
            file = stack.enter_context(appearing(path))
        except OSError as error:
            raise InvalidArgument(f"cannot be written: {error.strerror}", field=field, value=str(path)) from error
        os.fchmod(file.fileno(), mode)  # an unfinished file is private, a finished one is as any
        yield file


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
