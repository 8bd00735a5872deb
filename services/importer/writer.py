"""Writes packed values of users."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisClient
from services.importer.lease import Lease

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
    version is live.
    """

    def __init__(self, redis: RedisClient, key_of: KeyOf, *, ttl_s: float) -> None:
        self._redis = redis
        self._key_of = key_of
        self._ttl_ms = int(ttl_s * 1000)

    async def write(self, users: Sequence[str], values: Sequence[bytes], lease: Lease) -> None:
        """Write values; of a user that occurs twice the last one. Doing it again changes nothing.

        Raises:
            LeaseLost: Found before the first write.
            Unavailable: Some may be written.
        """
        # Each user once: the chunks below travel side by side, and which one arrives last is open.
        items = list(dict(zip(users, values, strict=True)).items())
        lease.check()
        await asyncio.gather(*(self._write(items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)))

    async def _write(self, items: Sequence[tuple[str, bytes]]) -> None:
        pipeline = self._redis.pipeline()
        for user, value in items:
            # Not `pipeline.set`: its parsing of options costs as much as all the rest.
            pipeline.execute_command("SET", self._key_of(user), value, "PX", self._ttl_ms)
        async with self._redis.guarded():
            await pipeline.execute()
