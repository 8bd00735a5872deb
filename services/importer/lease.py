"""Leases: at most one importer imports into a source at a time.

A lease is a Redis key with a time to live that its owner renews. Each one that is given out has a higher number (the
*number*) than all before it of the same source; job records remember the highest number that wrote them and refuse a
lower one, and the script that makes a version live checks the lease itself. An importer that was stopped for longer
than its lease (a suspended machine) sees by its own steady clock that it is too late and writes nothing more; what it
had in flight carries its old version number, which no reader takes.
"""

from __future__ import annotations

from banditmesh.runtime import keys
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.redis import RedisClient

COUNTER_TTL_S = 400 * 86400.0
"""Longer than any job record lives, or a number could come again."""

# What has no time to live is no lease: nobody would ever get one again.
# The number starts above the live version as well: should Redis have lost the counter, no version number comes twice.
_ACQUIRE = """
if redis.call('PTTL', KEYS[1]) >= 0 then return 0 end
local live = redis.call('GET', KEYS[3])
local floor = live and tonumber(string.match(live, '^%d+')) or 0
local number = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') or 0, floor) + 1
redis.call('SET', KEYS[2], string.format('%d', number), 'PX', ARGV[3])
redis.call('SET', KEYS[1], string.format('%d', number) .. ':' .. ARGV[1], 'PX', ARGV[2])
return number
"""
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"


class LeaseLost(Exception):
    """Somebody else may have the lease: stop, and write nothing more."""


class Lease:
    """The right to import into a source."""

    def __init__(
        self, redis: RedisClient, clock: Clock, source: str, number: int, token: str, ttl_s: float, until_s: float
    ) -> None:
        self.source = source
        self.number = number
        self.token = token
        """The key's value, for scripts that check it."""
        self._redis = redis
        self._clock = clock
        self._ttl_s = ttl_s
        self._until_s = until_s

    def check(self) -> None:
        """Raise LeaseLost when it has run out by our own clock; called before each write."""
        if self._clock.monotonic_s() >= self._until_s:
            raise LeaseLost(f"the lease of {self.source} has run out")

    async def keep(self) -> None:
        """Renew until cancelled; raises LeaseLost."""
        while True:
            await self._clock.sleep(self._ttl_s / 3)
            asked_s = self._clock.monotonic_s()
            try:
                renewed = await self._expire_in(self._ttl_s)
            except Unavailable:
                self.check()
                continue
            if not renewed:
                raise LeaseLost(f"the lease of {self.source} has another owner")
            self._until_s = asked_s + self._ttl_s

    async def release(self, after_s: float = 0.0) -> None:
        """Give it back, now or ``after_s``; nothing happens when somebody else has it."""
        self._until_s = self._clock.monotonic_s()
        await self._expire_in(after_s)

    async def _expire_in(self, seconds: float) -> bool:
        name = keys.source_lease(self.source)
        async with self._redis.guarded(name):
            reply = await self._redis.client.eval(_RENEW, 1, name, self.token, int(seconds * 1000))
        return bool(reply)


class Leases:
    """Gives out leases to one importer process."""

    def __init__(self, redis: RedisClient, clock: Clock, *, owner: str, ttl_s: float) -> None:
        """``owner`` names the process, uniquely: a restarted one is another."""
        self.owner = owner
        self._redis = redis
        self._clock = clock
        self._ttl_s = ttl_s

    async def acquire(self, source: str) -> Lease | None:
        """Return the lease of a source, None when somebody has it. Raises Unavailable."""
        asked_s = self._clock.monotonic_s()
        names = (keys.source_lease(source), keys.source_counter(source), keys.live(source))
        async with self._redis.guarded(*names):
            number = await self._redis.client.eval(
                _ACQUIRE, len(names), *names, self.owner, int(self._ttl_s * 1000), int(COUNTER_TTL_S * 1000)
            )
        if not number:
            return None
        return Lease(
            self._redis, self._clock, source, number, f"{number}:{self.owner}", self._ttl_s, asked_s + self._ttl_s
        )
