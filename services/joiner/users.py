"""Users' records in Redis: changed by the owners of the user's partitions, each change a whole record or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from banditmesh.runtime import keys
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.user_record import BadRecord, UserRecord

log = get_logger(__name__)

RECORD_TTL_MS = 60 * 86_400_000
_Swap = tuple[str, str, bytes]
"""Key, digest of what must stand there, new value."""

# Two streams write a user's record, each from another process perhaps, and a zombie may too. Whoever does not know the
# record that stands there, byte for byte, changes nothing. KEYS: records. ARGV: time to live, then digest and new value
# of each. Returns 1 for each that was written.
_SWAP = """
local written = {}
for i = 1, #KEYS do
  local value = redis.pcall('GET', KEYS[i])
  if type(value) == 'table' then value = false end  -- an error: what stands there is no text, and MGET saw nothing
  if (value and redis.sha1hex(value) or '') == ARGV[2 * i] then
    redis.call('SET', KEYS[i], ARGV[2 * i + 1], 'PX', ARGV[1])
    written[i] = 1
  else
    written[i] = 0
  end
end
return written
"""


class Found(NamedTuple):
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
        swaps = [(_key(user_id), found[user_id].digest, record.pack()) for user_id, record in changed.items()]
        async with self._redis.guarded():
            written = await (self._swap_each(swaps) if self._redis.is_cluster else self._swap_all(swaps))
        return [user_id for user_id, done in zip(changed, written, strict=True) if not done]

    async def _swap_all(self, swaps: Sequence[_Swap]) -> Sequence[int]:
        """On one node, in one step: 500 commands of their own would cost this process ten times as much."""
        arguments: list[str | bytes] = []
        for _, digest, value in swaps:
            arguments += (digest, value)
        names = [key for key, _, _ in swaps]
        written: list[int] = await self._redis.client.eval(_SWAP, len(names), *names, RECORD_TTL_MS, *arguments)
        return written

    async def _swap_each(self, swaps: Sequence[_Swap]) -> Sequence[int]:
        """On a Cluster each user is in a slot of its own."""
        pipeline = self._redis.pipeline()
        for key, digest, value in swaps:
            pipeline.eval(_SWAP, 1, key, RECORD_TTL_MS, digest, value)
        return list(chain.from_iterable(await pipeline.execute()))


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
