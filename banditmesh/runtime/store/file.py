"""A folder as an object store, with the conditional writes of S3.

An object is written to a temporary file, synced, and then linked (create: the file system lets one of two links win)
or renamed (replace: under a lock, after comparing). A reader or a process started after a kill sees the old object or
the new one.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from banditmesh.runtime.addresses import FileAddress
from banditmesh.runtime.cancellation import on_thread
from banditmesh.runtime.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from banditmesh.runtime.store import StoredObject
from banditmesh.runtime.store.durable import appearing, sync, sync_folder
from banditmesh.runtime.store.keys import valid_key, valid_prefix

CHUNK_BYTES = 1 << 20
ABANDONED_AFTER_S = 24 * 3600.0
"""A temporary file as old as this was left by a process that was killed."""

T = TypeVar("T")


class FileStore:
    """See :class:`~banditmesh.runtime.store.Store`. An etag is the SHA-256 of the content."""

    def __init__(self, address: FileAddress) -> None:
        """Creates the folder. Raises FailedPrecondition when that cannot be done."""
        self._address = address
        self._root = address.folder
        self._partial = self._root / ".partial"
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise FailedPrecondition(
                f"the store's folder cannot be used: {error.strerror}", value=str(address), hint="choose another folder"
            ) from error

    @property
    def location(self) -> str:
        return str(self._address)

    async def put_new(self, key: str, body: bytes) -> str:
        return await self._run(key, lambda path: self._create(path, key, lambda file: _write(file, body)))

    async def upload_new(self, key: str, path: Path) -> str:
        with await asyncio.to_thread(path.open, "rb") as source:
            return await self._run(key, lambda target: self._create(target, key, lambda file: _copy(source, file)))

    async def replace(self, key: str, body: bytes, etag: str) -> str:
        def compare_and_rename(path: Path) -> str:
            with self._lock():
                if not path.is_file() or _etag(path.read_bytes()) != etag:
                    raise Aborted(
                        "the object has been changed by somebody else", field="key", value=key, hint="read it again"
                    )
                return self._overwrite(path, body)

        return await self._run(key, compare_and_rename)

    async def put(self, key: str, body: bytes) -> str:
        def overwrite(path: Path) -> str:
            with self._lock():
                return self._overwrite(path, body)

        return await self._run(key, overwrite)

    async def get(self, key: str) -> StoredObject:
        body = await self._run(key, Path.read_bytes)
        return StoredObject(body, _etag(body))

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        found = await self.get(key)
        return None if found.etag == etag else found

    async def download(self, key: str, path: Path) -> str:
        def copy(source: IO[bytes]) -> str:
            with appearing(path) as file:
                return _copy(source, file)

        with await self._run(key, lambda object_path: object_path.open("rb")) as source:
            return await on_thread(copy, source)

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        valid_prefix(prefix)
        for key in await asyncio.to_thread(lambda: sorted(self._keys(prefix))):
            yield key

    async def delete(self, key: str) -> None:
        def unlink(path: Path) -> None:
            with self._lock():
                path.unlink(missing_ok=True)

        await self._run(key, unlink)

    async def ping(self) -> None:
        if not await asyncio.to_thread(os.access, self._root, os.R_OK | os.W_OK):
            raise Unavailable(
                "the store's folder is gone, or not ours to write", value=self.location, dependency="store"
            )

    async def close(self) -> None:
        pass

    async def _run(self, key: str, operation: Callable[[Path], T]) -> T:
        """Run a blocking operation on the key's path in a thread, its OSErrors translated."""
        path = self._root / valid_key(key)
        try:
            return await asyncio.to_thread(operation, path)
        except OSError as error:
            raise self._translated(error, key) from error

    def _translated(self, error: OSError, key: str) -> MeshError:
        if isinstance(error, (FileNotFoundError, IsADirectoryError)):
            return NotFound(f"no such object in {self.location}", field="key", value=key)
        if isinstance(error, PermissionError):
            return PermissionDenied(f"{self.location}: {error.strerror}", field="key", value=key)
        if isinstance(error, (NotADirectoryError, FileExistsError)):
            return FailedPrecondition(
                "one object's key is another's folder", field="key", value=key, hint="no key may continue another key"
            )
        return Unavailable(f"{self.location}: {error.strerror or error}", field="key", value=key, dependency="store")

    def _create(self, path: Path, key: str, fill: Callable[[IO[bytes]], str]) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._partial) as file:
            etag = fill(file)
            sync(file)
            try:
                os.link(file.name, path)
            except FileExistsError:
                raise AlreadyExists(f"the object is in {self.location} already", field="key", value=key) from None
        sync_folder(path.parent)
        return etag

    def _overwrite(self, path: Path, body: bytes) -> str:
        with appearing(path, beside=self._partial) as file:
            return _write(file, body)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Exclusive among all processes and threads that use this folder."""
        with (self._root / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield  # closing the file gives the lock back

    def _keys(self, prefix: str) -> Iterator[str]:
        below = self._root / prefix.rpartition("/")[0]
        for folder, folders, files in os.walk(below):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                key = Path(folder, name).relative_to(self._root).as_posix()
                if key.startswith(prefix) and not name.startswith("."):
                    yield key

    def _sweep(self) -> None:
        oldest_s = time.time() - ABANDONED_AFTER_S
        for path in self._partial.iterdir():
            with suppress(FileNotFoundError):  # another process is done with it
                if path.stat().st_mtime < oldest_s:
                    path.unlink()


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _write(file: IO[bytes], body: bytes) -> str:
    file.write(body)
    return _etag(body)


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()
