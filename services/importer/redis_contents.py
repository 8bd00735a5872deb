"""Contents in Redis.

A change is written in this order: its key into the *unannounced* set, the value, the announcement, its key out of the
set. Killed in between, the key is still in the set, and the next import or refresh of the service announces it
(:meth:`RedisContents.announce_leftovers`); to announce a content that did not change costs engines one read.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.runtime import keys, packing
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.known_contents import known_contents
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.redis import RedisClient
from services.importer.changes import Changes
from services.importer.embeddings import Embeddings

log = get_logger(__name__)

CHUNK = 500


class RedisContents:
    """The contents of all services. Every method may raise Unavailable."""

    def __init__(
        self,
        redis: RedisClient,
        changes: Changes,
        clock: Clock,
        *,
        ttl_s: float,
        embeddings: Embeddings | None = None,
    ) -> None:
        """``ttl_s``: contents that nothing confirms for so long expire. ``embeddings``: None: they get no vectors."""
        self._embeddings = embeddings
        self._redis = redis
        self._commands: Any = redis.client
        self._changes = changes
        self._clock = clock
        self._ttl_s = ttl_s

    async def confirm(self, service: str, content_ids: Sequence[str]) -> list[str]:
        """Let the contents that are known live on, and return the ids of the others."""
        unknown: list[str] = []
        for start in range(0, len(content_ids), CHUNK):
            chunk = content_ids[start : start + CHUNK]
            names = [keys.content(content_key(service, content_id)) for content_id in chunk]
            values = await self._redis.read(names)
            pipeline = self._redis.pipeline()
            known: list[str] = []
            for content_id, name, value in zip(chunk, names, values, strict=True):
                content = None if value is None else _read(name, value)
                if content is None:
                    unknown.append(content_id)
                else:
                    pipeline.pexpireat(name, self._expires_at_ms(content))
                    known.append(content_id)
            if known:
                self._remember(pipeline, service, known)
                async with self._redis.guarded(keys.known_contents(service)):
                    await pipeline.execute()
        return unknown

    def has_expired(self, content: provider_pb2.Content) -> bool:
        """Whether a content's own time has passed."""
        return self._expires_at_ms(content) <= self._clock.now_s() * 1000

    async def save(self, service: str, contents: Sequence[provider_pb2.Content]) -> int:
        """Store contents, announce those whose bytes are not what they were, and return how many those are."""
        changed = 0
        for start in range(0, len(contents), CHUNK):
            changed += await self._save_chunk(service, contents[start : start + CHUNK])
        return changed

    async def _save_chunk(self, service: str, contents: Sequence[provider_pb2.Content]) -> int:
        of = [content_key(service, content.content_id) for content in contents]
        vectors = [b""] * len(contents) if self._embeddings is None else await self._embeddings.of(contents)
        values = [
            packing.pack_content(service, _stored(content), vector)
            for content, vector in zip(contents, vectors, strict=True)
        ]
        before = await self._redis.read([keys.content(key) for key in of])
        changed = [key for key, value, old in zip(of, values, before, strict=True) if value != old]
        await self._mark_unannounced(service, changed)
        pipeline = self._redis.pipeline()
        for key, value, content in zip(of, values, contents, strict=True):
            pipeline.execute_command("SET", keys.content(key), value, "PXAT", self._expires_at_ms(content))
        self._remember(pipeline, service, [content.content_id for content in contents])
        async with self._redis.guarded(keys.known_contents(service)):
            await pipeline.execute()
        await self._announce(service, changed)
        return len(changed)

    async def drop(self, service: str, content_ids: Sequence[str]) -> None:
        """Remove contents and announce that they are gone."""
        for start in range(0, len(content_ids), CHUNK):
            chunk = content_ids[start : start + CHUNK]
            of = [content_key(service, content_id) for content_id in chunk]
            await self._mark_unannounced(service, of)
            pipeline = self._redis.pipeline()
            for key in of:
                pipeline.delete(keys.content(key))
            pipeline.srem(keys.known_contents(service), *chunk)
            async with self._redis.guarded(keys.known_contents(service)):
                await pipeline.execute()
            await self._announce(service, of)

    async def announce_leftovers(self, service: str) -> None:
        """Announce what somebody who was killed has changed and not announced."""
        async with self._redis.guarded(keys.unannounced(service)):
            left = await self._commands.smembers(keys.unannounced(service))
        await self._announce(service, [int(key) for key in left if key.isdigit() and int(key) < 2**64])

    def known(self, service: str, most: int = CHUNK) -> AsyncIterator[list[str]]:
        """Yield the ids of a service's known contents, at most ``most`` at a time; one may come twice."""
        return known_contents(self._redis, service, most)

    async def _mark_unannounced(self, service: str, of: Sequence[int]) -> None:
        if of:
            pipeline = self._redis.pipeline()
            pipeline.sadd(keys.unannounced(service), *of)
            pipeline.pexpire(keys.unannounced(service), int(self._ttl_s * 1000))
            async with self._redis.guarded(keys.unannounced(service)):
                await pipeline.execute()

    async def _announce(self, service: str, of: Sequence[int]) -> None:
        if of:
            await self._changes.contents(of)
            async with self._redis.guarded(keys.unannounced(service)):
                await self._commands.srem(keys.unannounced(service), *of)

    def _remember(self, pipeline: Any, service: str, content_ids: Sequence[str]) -> None:
        name = keys.known_contents(service)
        pipeline.sadd(name, *content_ids)
        pipeline.pexpire(name, int(self._ttl_s * 1000))

    def _expires_at_ms(self, content: provider_pb2.Content) -> int:
        """When Redis forgets the content: after their time to live, or when it expires by itself if that is
        earlier.
        """
        at_ms = int((self._clock.now_s() + self._ttl_s) * 1000)
        return min(at_ms, content.expires_at.ToMilliseconds()) if content.HasField("expires_at") else at_ms


def _read(name: str, value: bytes) -> provider_pb2.Content | None:
    """The content of a packed value; None: it is none, and is asked for again as one that is not known."""
    try:
        return provider_pb2.Content.FromString(packing.unpack_content(value)[1])
    except (DecodeError, ValueError, struct.error) as error:
        log.error("a content in Redis cannot be read and is asked for anew", key=name, reason=str(error)[:200])
        return None


def _stored(content: provider_pb2.Content) -> bytes:
    """What is stored of a content, serialised: without what only the importer reads."""
    if content.body or content.embedding:
        own, content = content, provider_pb2.Content()
        content.CopyFrom(own)
        content.ClearField("body")
        content.ClearField("embedding")
    return content.SerializeToString(deterministic=True)
