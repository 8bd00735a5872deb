"""A store whose small objects stay readable on this machine's disk while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from banditmesh.runtime.errors import PermissionDenied, Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.store import Store, StoredObject
from banditmesh.runtime.store.durable import appearing
from banditmesh.runtime.store.keys import valid_key

log = get_logger(__name__)


class KeptStore:
    """See :class:`~banditmesh.runtime.store.Store`. What :meth:`get` has read is kept in a folder; when the store does
    not answer, or does not let us in, :meth:`get` answers with it. Everything else is the store's own.

    With the models' cache beside it (:class:`~banditmesh.runtime.snapshots.Snapshots`), a process that starts while the
    store is away has the models that the last one had.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        """``folder``: shared by the processes of a host. That it cannot be written to is logged, nothing more."""
        self._store = store
        self._folder = folder
        self._warned = False
        self._work = outages.work("reading of the store", of="store")

    @property
    def location(self) -> str:
        return self._store.location

    async def get(self, key: str) -> StoredObject:
        """The object, or as it was when it was read last. Raises ``NotFound`` when the store says so."""
        path = self._folder / valid_key(key)
        try:
            found = await self._store.get(key)
        except (Unavailable, PermissionDenied) as error:
            kept = await asyncio.to_thread(_read, path)
            if kept is None:
                raise
            self._work.failed(error, using="what was read of it before")
            return kept
        self._work.well()
        await self._keep(path, found)
        return found

    async def put_new(self, key: str, body: bytes) -> str:
        return await self._store.put_new(key, body)

    async def replace(self, key: str, body: bytes, etag: str) -> str:
        return await self._store.replace(key, body, etag)

    async def put(self, key: str, body: bytes) -> str:
        return await self._store.put(key, body)

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        found = await self._store.get_if_changed(key, etag)
        if found is not None:
            await self._keep(self._folder / valid_key(key), found)
        return found

    async def download(self, key: str, path: Path) -> str:
        return await self._store.download(key, path)

    async def upload_new(self, key: str, path: Path) -> str:
        return await self._store.upload_new(key, path)

    def list(self, prefix: str = "") -> AsyncIterator[str]:
        return self._store.list(prefix)

    async def delete(self, key: str) -> None:
        await self._store.delete(key)

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()

    async def _keep(self, path: Path, found: StoredObject) -> None:
        try:
            await asyncio.to_thread(_write, path, found)
        except OSError as error:  # a full disk: the store is there, and what it said is good
            if not self._warned:
                log.warning("what was read of the store cannot be kept", path=str(path), error=str(error))
            self._warned = True


def _write(path: Path, found: StoredObject) -> None:
    with appearing(path) as file:
        file.write(found.etag.encode() + b"\n" + found.body)


def _read(path: Path) -> StoredObject | None:
    """What was kept; None when there is nothing, or nothing whole."""
    try:
        etag, newline, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return StoredObject(body, etag.decode()) if newline else None
