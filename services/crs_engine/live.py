"""Which versions of mappings and profiles are live, and which contents have changed: what the importer announces,
followed.

The pointers are kept in the process, so that a selection costs one round trip. They are refreshed by the change
stream (within milliseconds), read again every :data:`REREAD_S` (whatever the stream has lost), and at the start. A
:class:`LiveVersions` is immutable: a batch of requests takes the current one and uses it throughout, so no request
ever sees two versions of one source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime import keys
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.packing import LiveVersion
from banditmesh.runtime.redis import RedisClient
from services.crs_engine.metrics import EngineMetrics

log = get_logger(__name__)

REREAD_S: Final = 5.0
BLOCK_S: Final = 1.0
"""How long one read of the stream waits; its connection must allow for more."""
RETRY_S: Final = 0.5
_AT_ONCE: Final = 1000

ContentsChanged = Callable[[NDArray[np.uint64] | None], None]
"""Told the keys (``uint64[n]``) of changed contents; None: any of them may have changed."""


@dataclass(frozen=True)
class LiveVersions:
    """The live version by source (``service/logic``), and of ``profiles``. What is missing was never imported."""

    versions: Mapping[str, LiveVersion]


class LiveFollower:
    """Keeps :attr:`current` up to date."""

    def __init__(
        self,
        redis: RedisClient,
        sources: Sequence[str],
        on_contents: ContentsChanged,
        clock: Clock,
        metrics: EngineMetrics,
    ) -> None:
        """``redis``: with a timeout above :data:`BLOCK_S`. ``sources``: whose pointers are wanted, profiles
        included."""
        self.current = LiveVersions({})
        self._redis = redis
        self._sources = tuple(sources)
        self._on_contents = on_contents
        self._clock = clock
        self._metrics = metrics
        self._last_id: str | None = None
        """Id of the last entry that was taken in; None: not connected yet, or the connection was lost."""
        self._rereading = asyncio.Lock()
        self._flips = 0
        """Versions that the stream has announced."""

    async def reread(self) -> None:
        """Read all pointers. Raises Unavailable."""
        async with self._rereading:  # or a read that began earlier and ends later would bring back what it saw
            self._publish(await self._read())

    async def _read(self) -> dict[str, LiveVersion]:
        flips = -1
        while flips != self._flips:  # a flip that was announced during the read may be newer than what was read
            flips = self._flips
            values = await self._redis.read([keys.live(source) for source in self._sources])
        found: dict[str, LiveVersion] = {}
        for source, value in zip(self._sources, values, strict=True):
            if value is None:
                continue
            try:
                found[source] = LiveVersion.unpack(value)
            except ValueError:
                self._metrics.unreadable.labels(kind="live").inc()
                log.warning("live pointer is unreadable", source=source, size=len(value))
                if source in self.current.versions:
                    found[source] = self.current.versions[source]
        return found

    async def try_reread(self) -> None:
        """:meth:`reread`, but that Redis is away is only logged."""
        try:
            await self.reread()
        except Unavailable as error:
            outages.failed("live versions", error)
        else:
            outages.well("live versions")

    async def reread_for_ever(self) -> None:
        """The safety net, to be run in the background."""
        while True:
            await self.try_reread()
            await self._clock.sleep(REREAD_S)

    async def follow(self) -> None:
        """Follow the change stream for ever, to be run in the background."""
        while True:
            try:
                if self._last_id is None:
                    self._last_id = await self._start()
                await self._take(self._last_id)
                outages.well("change stream")
            except Unavailable as error:
                outages.failed("change stream", error)
                self._last_id = None
                await self._clock.sleep(RETRY_S)

    async def _start(self) -> str:
        """Note where the stream ends, then take everything as changed: what comes later is in the stream, what came
        before is read anew."""
        async with self._redis.guarded(keys.CHANGES):
            newest = await self._redis.client.xrevrange(keys.CHANGES, count=1)
        await self.reread()
        self._on_contents(None)
        self._metrics.stream_restarts.inc()
        return _id(newest) if newest else "0-0"

    async def _take(self, after: str) -> None:
        async with self._redis.guarded(keys.CHANGES):
            reply = await self._redis.client.xread({keys.CHANGES: after}, count=_AT_ONCE, block=int(BLOCK_S * 1000))
        entries = reply_entries(reply)
        if not entries:
            return
        if len(entries) == _AT_ONCE and await self._trimmed_past(after):
            self._last_id = None
            return
        for entry_id, fields in entries:
            self._apply(fields)
            self._last_id = entry_id.decode()

    async def _trimmed_past(self, after: str) -> bool:
        """Whether the stream may have lost entries that were never read here: its oldest one is younger than the last
        one that was."""
        async with self._redis.guarded(keys.CHANGES):
            oldest = await self._redis.client.xrange(keys.CHANGES, count=1)
        return not oldest or _order(_id(oldest)) > _order(after)

    def _apply(self, fields: Mapping[bytes, bytes]) -> None:
        kind = fields.get(b"kind")
        try:
            if kind == b"content":
                self._on_contents(np.frombuffer(fields[b"keys"], "<u8"))
            elif kind == b"live":
                source = fields[b"source"].decode()
                changed = LiveVersion.found(int(fields[b"version"]), int(fields[b"slot"]), "")
                if source in self._sources:
                    self._flips += 1
                    self._publish({**self.current.versions, source: changed})
            else:
                raise ValueError(f"unknown kind {kind!r}")
        except (KeyError, ValueError) as error:
            self._metrics.unreadable.labels(kind="change").inc()
            log.warning("an entry of the change stream is unreadable", error=repr(error))

    def _publish(self, versions: Mapping[str, LiveVersion]) -> None:
        if versions != self.current.versions:
            self.current = LiveVersions(versions)


def reply_entries(reply: object) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of an XREAD of one stream, in either form that redis-py 8.1 answers with (a list by RESP2, a dict
    by RESP3)."""
    if not reply:
        return []
    if isinstance(reply, dict):
        (batches,) = reply.values()
        return [entry for batch in batches for entry in batch]
    assert isinstance(reply, list)
    return list(reply[0][1])


def _id(entries: Any) -> str:
    """The id of the only entry of an XRANGE."""
    ((entry_id, _),) = entries
    return str(entry_id, "ascii")


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)
