"""Published models: immutable versions in the object store, and the pointer that names the current one.

``models/<placement>/<model>/<version, 8 digits>/{tensors.safetensors, manifest.json}``, then ``…/current.json``: what
the pointer names is whole. A version is created, never overwritten, and the pointer moves by compare-and-set, so the
second of two publishers learns that it is the second (:class:`Superseded`). Nothing here unpickles.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import uuid
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from banditmesh.runtime import tensorfile
from banditmesh.runtime.errors import Aborted, AlreadyExists, Foreseen, NotFound, Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.store import Store
from banditmesh.runtime.tensorfile import BadSnapshot, TensorSpec

__all__ = ["BadSnapshot", "Manifest", "Pointer", "Snapshot", "Snapshots", "Superseded", "TensorSpec"]

log = get_logger(__name__)

MAX_BYTES = 2 << 30
"""A model larger than 2 GiB is taken for a mistake: an engine would map it for every one of its placements."""
CACHED_VERSIONS = 2
"""Of each model: the current one, and the one before, which a neighbour process may be about to map."""
REMEMBERED = 4096
"""Versions of a model; a store that was put back by more of them than that is taken for another publisher's."""
_VERSION = re.compile(r"(\d{8,})/")


@dataclass(frozen=True)
class Manifest:
    """What is known of a snapshot beside its tensors."""

    placement: str
    model: str
    """``<policy>-<digest of its parameters>``."""
    policy: str
    params: dict[str, Any]
    version: int
    """Counted from 1; 0 in a manifest that is yet to be published."""
    published_at_ms: int
    """Milliseconds since the Unix epoch, by the publisher's clock."""
    examples: int
    """How many examples the model has learned from."""
    offsets: dict[int, int]
    """Partition of ``examples`` → the offset to go on with."""
    sources: dict[int, int]
    """Partition of ``impressions`` → the offset of the last impression that was applied."""
    logs: dict[int, int] = field(default_factory=dict)
    """Partition of ``examples`` → which log the offset counts: a topic that was made anew has another one."""
    source_logs: dict[int, int] = field(default_factory=dict)
    """Partition of ``impressions`` → which log the offset counts."""
    watermark_ms: int = 0
    """Broker time before which every example is contained."""
    base: int = 0
    """The version that this one is a delta to, and that must be loaded first; 0: it is everything by itself."""
    rolled_back_to: int = 0
    """The version that this one repeats; 0 when it is no rollback."""
    features: dict[str, Any] = field(default_factory=dict)
    """What the model saw of a row beside its fields, as in a SPEC: whether its ``user``, and each ``cross``. Empty in
    manifests of releases that did not say it."""
    sha256: str = ""
    """Of ``tensors.safetensors``, in hexadecimal."""
    tensors: dict[str, TensorSpec] = field(default_factory=dict)


_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True)
class Pointer:
    """Which version is current, and the etag by which to move it on."""

    version: int
    etag: str


@dataclass(frozen=True)
class Snapshot:
    """A verified model. The tensors are read-only; mapped from the cache file when there is a cache."""

    manifest: Manifest
    tensors: dict[str, NDArray[Any]]


class Superseded(Foreseen):
    """Somebody else has published in the meantime: this publisher no longer owns the model."""


class Snapshots:
    """Publishes and loads. Methods raise the store's errors (``Unavailable``, …) besides those that they name."""

    def __init__(
        self, store: Store, cache: Path | None, *, max_bytes: int = MAX_BYTES, remembered: int = REMEMBERED
    ) -> None:
        """
        Args:
            cache: Folder for downloaded tensors, shared by the processes of a host; None: keep them in memory.
            remembered: How many versions of a model stay known as written by this object.
        """
        self._store = store
        self._cache = cache
        self._max_bytes = max_bytes
        self._created: dict[tuple[str, str], deque[int]] = defaultdict(lambda: deque(maxlen=remembered))
        """Of each model the versions that this object has written last: a pointer that names one was moved by us,
        whatever the answer was."""

    async def pointer(self, placement: str, model: str) -> Pointer | None:
        """The current version; None when nothing is published. Raises BadSnapshot ("pointer") when it is unreadable."""
        try:
            found = await self._store.get(_pointer_key(placement, model))
        except NotFound:
            return None
        return _pointer(found.body, found.etag)

    async def moved(self, placement: str, model: str, since: Pointer | None) -> Pointer | None:
        """The current pointer if it is another one than ``since``, else None. A cheap question, to be asked often."""
        if since is None:
            return await self.pointer(placement, model)
        try:
            found = await self._store.get_if_changed(_pointer_key(placement, model), since.etag)
        except NotFound:
            return None
        return None if found is None else _pointer(found.body, found.etag)

    async def manifest(self, placement: str, model: str, version: int) -> Manifest:
        """The manifest of a version. Raises BadSnapshot ("missing", "manifest")."""
        key = f"{_folder(placement, model)}/{version:08d}/manifest.json"
        try:
            manifest = _MANIFEST.validate_json((await self._store.get(key)).body)
        except NotFound as error:
            raise BadSnapshot("missing", f"{key} is not in {self._store.location}") from error
        except ValidationError as error:
            raise BadSnapshot("manifest", f"{key}: {error.errors(include_url=False)[0]['msg']}") from error
        if (manifest.placement, manifest.model, manifest.version) != (placement, model, version):
            raise BadSnapshot("manifest", f"{key} belongs to {manifest.placement}/{manifest.model} {manifest.version}")
        return manifest

    async def load(self, placement: str, model: str, version: int) -> Snapshot:
        """Download and verify a version: sha256, header, names, types, shapes, and that every float is finite.

        Raises BadSnapshot with a countable reason: missing, manifest, too_large, sha256, header, shape, not_finite.
        A cache that is full, not ours to write, or that a neighbour has just pruned is Unavailable: nothing is said of
        the version by that.
        """
        manifest = await self.manifest(placement, model, version)
        size = sum(spec.nbytes for spec in manifest.tensors.values())
        if size > self._max_bytes:
            raise BadSnapshot("too_large", f"{_key(manifest)} has {size} bytes, allowed are {self._max_bytes}")
        try:
            if self._cache is None:
                body = (await self._store.get(_key(manifest))).body
                tensors = await asyncio.to_thread(tensorfile.verified, body, manifest.sha256, manifest.tensors)
            else:
                path = await self._cached(self._cache / placement / model, manifest)
                tensors = await asyncio.to_thread(tensorfile.mapped, path, manifest.sha256, manifest.tensors)
        except NotFound as error:
            raise BadSnapshot("missing", f"{_key(manifest)} is not in {self._store.location}") from error
        except OSError as error:
            raise Unavailable(f"the model cache {self._cache}: {error}", dependency="model cache") from error
        return Snapshot(manifest, tensors)

    async def publish(
        self, manifest: Manifest, tensors: Mapping[str, NDArray[Any]], *, after: Pointer | None
    ) -> Pointer:
        """Write the next version and let the pointer name it. Fills in the manifest's version, sha256 and tensors.

        ``after``: the pointer that the publisher knows; None when nothing is published yet. Raises Superseded when it
        has moved since, and BadSnapshot ("not_finite") for a model that every engine would refuse. After any other
        error it may be called again.
        """
        body = await asyncio.to_thread(tensorfile.encode, tensors)
        placement, model = manifest.placement, manifest.model
        manifest = replace(
            manifest,
            sha256=await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest()),
            tensors={name: TensorSpec(str(array.dtype), array.shape) for name, array in sorted(tensors.items())},
        )
        # A number that is taken without being current is what a crash has left, or a publisher's who is just ahead.
        version: int = 1 + max([after.version if after else 0, *await self._numbers(placement, model)])
        while True:
            manifest = replace(manifest, version=version)
            try:
                await self._store.put_new(_key(manifest), body)
                break
            except AlreadyExists:
                version += 1
        self._created[placement, model].append(version)
        text = json.dumps(_MANIFEST.dump_python(manifest, mode="json"), indent=1, sort_keys=True, allow_nan=False)
        await self._store.put_new(f"{_folder(placement, model)}/{version:08d}/manifest.json", text.encode())
        try:
            return await self._point(placement, model, version, after)
        except Superseded:
            await self.remove(placement, model, version)
            raise

    async def versions(self, placement: str, model: str) -> list[int]:
        """Numbers of the versions up to the current one, ascending."""
        current = await self.pointer(placement, model)
        numbers = await self._numbers(placement, model)
        return [number for number in sorted(numbers) if current is not None and number <= current.version]

    async def remove(self, placement: str, model: str, version: int) -> None:
        """Delete a version, manifest first: what has no manifest is not listed. Never call it for the current one."""
        for name in ("manifest.json", "tensors.safetensors"):
            await self._store.delete(f"{_folder(placement, model)}/{version:08d}/{name}")

    async def _numbers(self, placement: str, model: str) -> set[int]:
        """Every number that is taken, also by what a crash has left."""
        prefix = f"{_folder(placement, model)}/"
        keys = [key.removeprefix(prefix) async for key in self._store.list(prefix)]
        return {int(match[1]) for key in keys if (match := _VERSION.match(key))}

    async def _point(self, placement: str, model: str, version: int, after: Pointer | None) -> Pointer:
        """Compare-and-set of the pointer. An answer lost on the way is not mistaken for somebody else's move."""
        key, body = _pointer_key(placement, model), json.dumps({"version": version}).encode()
        while True:
            try:
                if after is None:
                    return Pointer(version, await self._store.put_new(key, body))
                return Pointer(version, await self._store.replace(key, body, after.etag))
            except (AlreadyExists, Aborted) as error:
                now = await self.pointer(placement, model)
                ours = now is not None and now.version in self._created[placement, model]
                if now is None or not ours or now == after:
                    found = f"version {now.version}" if now else "nothing"
                    known = f"version {after.version}" if after else "nothing"
                    raise Superseded(f"{key} names {found}, this publisher last saw {known}") from error
                if now.version == version:
                    return now
                after = now

    async def _cached(self, folder: Path, manifest: Manifest) -> Path:
        """The cache file of a version: the one that a neighbour has put there, or a new download."""
        path = folder / f"{manifest.version:08d}-{manifest.sha256[:16]}.safetensors"
        if not await asyncio.to_thread(path.exists):
            part = folder / f".{uuid.uuid4().hex}.part"
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            try:
                await self._store.download(_key(manifest), part)
                await asyncio.to_thread(_keep_first, part, path)
            finally:
                await asyncio.to_thread(part.unlink, missing_ok=True)
            await asyncio.to_thread(_prune, path)
        return path

    async def list(self, placement: str, model: str, limit: int) -> list[Manifest]:
        """The published versions, newest first, at most ``limit``; an unreadable manifest is logged and left out."""
        current = await self.pointer(placement, model)
        found: list[Manifest] = []
        for version in reversed(await self.versions(placement, model)) if current else ():
            if len(found) == limit:
                break
            try:
                found.append(await self.manifest(placement, model, version))
            except BadSnapshot as error:
                log.warning("snapshot left out", placement=placement, model=model, version=version, reason=str(error))
        return found


def _keep_first(part: Path, path: Path) -> None:
    """Give a finished download its name, unless a neighbour was faster: then all share the neighbour's pages."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return


def _prune(keep: Path) -> None:
    """Delete the older cache files of a model. Whoever has one mapped keeps its pages until he lets go."""
    for path in sorted(keep.parent.glob("*.safetensors"))[:-CACHED_VERSIONS]:
        if path != keep:
            path.unlink(missing_ok=True)


def _folder(placement: str, model: str) -> str:
    return f"models/{placement}/{model}"


def _key(manifest: Manifest) -> str:
    return f"{_folder(manifest.placement, manifest.model)}/{manifest.version:08d}/tensors.safetensors"


def _pointer_key(placement: str, model: str) -> str:
    return f"{_folder(placement, model)}/current.json"


def _pointer(body: bytes, etag: str) -> Pointer:
    try:
        version = json.loads(body)["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadSnapshot("pointer", f"current.json holds {body[:80]!r}, not a version") from error
    if not isinstance(version, int) or isinstance(version, bool) or not 0 < version < math.inf:
        raise BadSnapshot("pointer", f"current.json names version {version!r}")
    return Pointer(version, etag)
