"""The cache folder: ``$BANDITMESH_CACHE``, else ``$XDG_CACHE_HOME/banditmesh``, else ``~/.cache/banditmesh``.

What lies in it can be fetched or built again; deleting it costs time only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def folder() -> Path:
    """The cache folder; it exists."""
    named = os.environ.get("BANDITMESH_CACHE")
    path = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "banditmesh"
    path.mkdir(parents=True, exist_ok=True)
    return path.absolute()


def once(name: str, build: Callable[[Path], None], within: Path | None = None) -> Path:
    """The folder ``name`` of the cache, or of ``within``, which exists. If it is missing, ``build`` fills it, in one
    process while the others wait.

    It appears whole or not at all: ``build`` fills a temporary folder, which is then renamed. What a killed builder
    left is cleared. Whoever may read the folder that it lies in may read it.
    """
    parent = within or folder()
    finished = parent / name
    if finished.is_dir():
        return finished
    with _locked(parent, name):
        if not finished.is_dir():
            for abandoned in parent.glob(f".{name}.*.partial"):
                shutil.rmtree(abandoned)
            partial = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=parent))
            try:
                build(partial)
                partial.chmod(parent.stat().st_mode & 0o777)
                partial.rename(finished)
            except BaseException:
                shutil.rmtree(partial)
                raise
    return finished


@contextmanager
def _locked(parent: Path, name: str) -> Iterator[None]:
    """Hold the lock of one entry. The kernel lets go of it when the process ends, however it ends."""
    with (parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
