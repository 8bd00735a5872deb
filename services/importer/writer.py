"""Writes packed values of users."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from banditmesh.runtime import keys, packing
from banditmesh.runtime.redis import RedisClient
from services.importer.failure import JobWarning
from services.importer.lease import Lease
from services.importer.rows import Packed

CHUNK = 500
"""Commands a round trip: enough that the trip does not count, few enough that other clients need not wait long."""

KeyOf = Callable[[str], str]


def candidates_key(source: str, slot: int) -> KeyOf:
    """Where the candidates of a user go."""
    return lambda user: keys.candidates(keys.user_tag(user), source, slot)


def profile_key(slot: int) -> KeyOf:
    """Where the profile of a user goes."""
    return lambda user: keys.profile(keys.user_tag(user), slot)


class UserWriter:
    """Writes into one slot of one source. Each value carries its version's number, so nobody reads it before the
    version is live, and a user of whom a row was written before is recognised by it.
    """

    def __init__(self, redis: RedisClient, key_of: KeyOf, *, version: int, ttl_s: float, resumed: bool) -> None:
        """``resumed``: the first batch may have been written before, by whoever was killed."""
        self._redis = redis
        self._key_of = key_of
        self._header = packing.VERSION.pack(version)
        self._ttl_ms = int(ttl_s * 1000)
        self._resumed = resumed

    async def write(self, batch: Packed, file: str, lease: Lease) -> list[JobWarning]:
        """Write values; of a user that occurs twice the last one. Doing it again changes nothing.

        Returns:
            A warning if users occurred before.

        Raises:
            LeaseLost: Found before the first write.
            Unavailable: Some may be written.
        """
        # Each user once: the chunks below travel side by side, and which one arrives last is open.
        items = list(dict(zip(batch.users, batch.values, strict=True)).items())
        lease.check()
        chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
        written = await asyncio.gather(*map(self._write, chunks))
        before = set() if self._resumed else set().union(*written)
        self._resumed = False
        seen: set[str] = set()
        rows: list[int] = []
        for user, row in (
            zip(batch.users, batch.user_rows, strict=True) if before or len(items) < len(batch.users) else ()
        ):
            if user in before or user in seen:
                rows.append(row)
            seen.add(user)
        if not rows:
            return []
        message = f"row {rows[0]} of {file} is about a user of whom an earlier row is too: the last row counts"
        return [JobWarning("duplicate_user", message, file, rows[0], len(rows))]

    async def _write(self, items: Sequence[tuple[str, bytes]]) -> set[str]:
        """Write a chunk and return those users who had a value of this version already."""
        pipeline = self._redis.pipeline()
        names = [self._key_of(user) for user, _ in items]
        for name, (_, value) in zip(names, items, strict=True):
            # Not `pipeline.set`: its parsing of options costs as much as all the rest.
            pipeline.execute_command("SET", name, value, "PX", self._ttl_ms, "GET", get=True)
        async with self._redis.guarded(*names):
            replies = await pipeline.execute()
        return {
            user
            for (user, _), old in zip(items, replies, strict=True)
            if old is not None and old.startswith(self._header)
        }
