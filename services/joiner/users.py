"""Users' records in Redis: changed by the owners of the user's partitions, each change a whole record or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from banditmesh.runtime import keys
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.user_record import BadRecord, UserRecord

log = get_logger(__name__)

RECORD_TTL_MS = 60 * 86_400_000

# Two streams write a user's record, each from another process perhaps, and a zombie may too. Whoever does not know the
# record that stands there, byte for byte, changes nothing.
_SWAP = """
local value = redis.call('GET', KEYS[1])
if (value and redis.sha1hex(value) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A user's record as it stands in Redis. ``digest``: SHA-1 of its bytes there, in hexadecimal; empty: there is
    none."""

    record: UserRecord
    digest: str


class Users:
    """Reads and replaces records. Every call is one round trip (a node), and raises Unavailable when Redis does not
    answer."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def read(self, user_ids: Collection[str]) -> dict[str, Found]:
        """The records of users; empty ones for users of whom nothing is known."""
        values = await self._redis.read([_key(user_id) for user_id in user_ids])
        return {user_id: _found(user_id, value) for user_id, value in zip(user_ids, values, strict=True)}

    async def change(
        self,
        user_ids: Collection[str],
        step: Callable[[Mapping[str, UserRecord]], Mapping[str, UserRecord]],
        verify: Callable[[], Awaitable[None]],
    ) -> int:
        """Change the records of users, and return how often one had to be read again because another writer was faster.

        Args:
            user_ids: Whose.
            step: From the records of some of them to those that change.
            verify: Raises when Redis has gone back in time; asked after each reading and before each writing, so that a
                record that stands at a position is never written over the loss of what came before it.
        """
        conflicts = 0
        wanted: Collection[str] = user_ids
        while wanted:
            found = await self.read(wanted)
            await verify()
            changed = step({user_id: each.record for user_id, each in found.items()})
            wanted = await self.replace(found, changed)
            conflicts += len(wanted)
        return conflicts

    async def replace(self, found: Mapping[str, Found], changed: Mapping[str, UserRecord]) -> list[str]:
        """Write changed records where the one that was found still stands, and return the users where another one
        did."""
        if not changed:
            return []
        pipeline = self._redis.pipeline()
        for user_id, record in changed.items():
            pipeline.eval(_SWAP, 1, _key(user_id), found[user_id].digest, record.pack(), RECORD_TTL_MS)
        async with self._redis.guarded():
            written: list[int] = await pipeline.execute()
        return [user_id for user_id, done in zip(changed, written, strict=True) if not done]


def _found(user_id: str, value: bytes | None) -> Found:
    if value is None:
        return Found(UserRecord.empty(), "")
    digest = hashlib.sha1(value, usedforsecurity=False).hexdigest()
    try:
        return Found(UserRecord.unpack(value), digest)
    except BadRecord as error:
        # Nobody but this service writes it; what is broken must not stop a partition. The engine takes it for empty.
        log.error("a user's record cannot be read and begins anew", user_id=user_id, reason=str(error))
        return Found(UserRecord.empty(), digest)


def _key(user_id: str) -> str:
    return keys.state(keys.user_tag(user_id))
