"""Object store behind one protocol: ``s3://`` by boto3 and ``file://`` with the same meaning.

Versions of a model are created with :meth:`Store.put_new` (which also fences a second writer); the pointer to the
current one is changed with :meth:`Store.replace`. Both are atomic: a reader, or a process started after a kill, sees
the whole object or none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple, Protocol

from banditmesh.runtime.addresses import FileAddress, StoreAddress, parse_store
from banditmesh.runtime.errors import ConfigurationError, NotFound, Unavailable


class StoredObject(NamedTuple):
    """The bytes of an object and the etag that :meth:`Store.replace` wants."""

    body: bytes
    etag: str


class Store(Protocol):
    """Objects by key below one prefix. Keys are relative: ``models/home/linucb-1a2b3c4d/current.json``.

    Every method may raise ``Unavailable`` (endpoint away or slow; names endpoint and bucket), ``PermissionDenied``
    (credentials),
    ``FailedPrecondition`` (no such bucket or folder) and ``InvalidArgument`` (a key with ``..``, absolute, empty or
    over 512 bytes). What is wrong with a local file (``path``) is an OSError as usual.
    """

    @property
    def location(self) -> str:
        """The store's URL, without credentials, for logs and messages."""
        ...

    async def put_new(self, key: str, body: bytes) -> str:
        """Create an object and return its etag. Raises ``AlreadyExists`` and changes nothing when the key is taken."""
        ...

    async def replace(self, key: str, body: bytes, etag: str) -> str:
        """Replace the object that has this etag and return the new etag. Raises ``Aborted`` when it has another by
        now, or is gone.
        """
        ...

    async def put(self, key: str, body: bytes) -> str:
        """Create or overwrite, whatever is there. Returns the etag."""
        ...

    async def get(self, key: str) -> StoredObject:
        """Raises ``NotFound``."""
        ...

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        """None when the object still has this etag. Raises ``NotFound``."""
        ...

    async def download(self, key: str, path: Path) -> str:
        """Stream an object into a file that appears whole or not at all; returns its etag. Raises ``NotFound``."""
        ...

    async def upload_new(self, key: str, path: Path) -> str:
        """:meth:`put_new` of a file, streamed. Raises ``AlreadyExists``."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys that start with ``prefix``, ascending, fetched page by page."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""
        ...

    async def ping(self) -> None:
        """Raise when the store cannot be reached: the health check of a service that needs it."""
        ...

    async def close(self) -> None:
        """Give threads and connections back."""
        ...


async def must_answer(store: Store, within_s: float) -> None:
    """Raise Unavailable unless the store answers now: asked before work that somebody waits for, since a store that
    hangs is tried for half a minute, and the caller would hear of nothing but a deadline."""
    try:
        async with asyncio.timeout(within_s):
            await store.ping()
    except TimeoutError as error:
        raise Unavailable(
            f"{store.location} does not answer within {within_s:g} s",
            hint="see --store, BANDITMESH_STORE",
            retry_after_s=within_s,
            dependency="store",
        ) from error


def connect(address: StoreAddress) -> Store:
    """The store at an address of the settings. Makes a file store's folder; touches no network yet."""
    if isinstance(address, FileAddress):
        from banditmesh.runtime.store.file import FileStore

        return FileStore(address)
    from banditmesh.runtime.store.s3 import S3Store  # boto3 takes 0.3 s to import; who uses no S3 need not wait

    return S3Store(address)


def open_store(url: str) -> Store:
    """The store of a URL: ``s3://bucket/prefix?endpoint=http://host:port&region=us-east-1`` or ``file:///folder``.

    Raises ConfigurationError when it is not such a URL.
    """
    return connect(_parsed(url))


def open_existing(url: str) -> Store:
    """As :func:`open_store`, of a store that others fill: a folder that is not there is a wrong address, and is not
    made. Raises NotFound."""
    address = _parsed(url)
    if isinstance(address, FileAddress) and not address.folder.is_dir():
        raise NotFound(f"there is no folder {address.folder}", hint="see --store, BANDITMESH_STORE")
    return connect(address)


def _parsed(url: str) -> StoreAddress:
    try:
        return parse_store(url)
    except ValueError as error:
        raise ConfigurationError(f"not a store URL: {url!r}: {error}") from error
