"""Users' states in Redis: written only by the owner of the user's reactions partition, and never back to an older
one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from banditmesh.runtime import keys
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.packing import UserState
from banditmesh.runtime.redis import RedisStore

log = get_logger(__name__)

STATE_TTL_MS = 60 * 86_400_000
_OFFSET_BYTES = 8

# A state begins with the offset that it has come to. A zombie has read an older one than stands there now.
_SWAP = """
if string.sub(redis.call('GET', KEYS[1]) or '', 1, 8) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A user's state as it stands in Redis. ``head``: its first bytes there; empty: there is none."""

    state: UserState
    head: bytes


class UserStates:
    """Reads and replaces states. Every call is one round trip (a node), and raises Unavailable when Redis does not
    answer."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def read(self, user_ids: Collection[str]) -> dict[str, Held]:
        """The states of users; empty ones for users who never reacted."""
        values = await self._store.read([_key(user_id) for user_id in user_ids])
        return {user_id: _held(user_id, value) for user_id, value in zip(user_ids, values, strict=True)}

    async def replace(self, old: Mapping[str, Held], changed: Mapping[str, UserState]) -> int:
        """Write changed states where the old one still stands, and return how many were not written because another
        one did."""
        if not changed:
            return 0
        pipeline = self._store.pipeline()
        for user_id, state in changed.items():
            pipeline.eval(_SWAP, 1, _key(user_id), old[user_id].head, state.pack(), STATE_TTL_MS)
        async with self._store.guarded():
            written: list[int] = await pipeline.execute()
        return len(changed) - sum(written)


def _held(user_id: str, value: bytes | None) -> Held:
    if value is None:
        return Held(UserState.empty(), b"")
    try:
        return Held(UserState.unpack(value), value[:_OFFSET_BYTES])
    except ValueError:
        # Nobody but this service writes it; what is broken must not stop a partition. The engine takes it for empty.
        log.error("the state of a user cannot be read and begins anew", user_id=user_id, bytes=len(value))
        return Held(UserState.empty(), value[:_OFFSET_BYTES])


def _key(user_id: str) -> str:
    return keys.state(keys.user_tag(user_id))
