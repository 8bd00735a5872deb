"""What the joiner keeps of one partition in Redis: reactions, closed impressions, and how far the reactions have been
read.

All keys of a partition share a hash tag, and what must not come apart is one script: Redis loses a script's writes
together or not at all, also in a fail-over to a replica that is behind. So the reactions are there iff the progress
says that they have been read.

=============  =======================================================================================================
progress       ``<next offset>:<watermark ms>`` of the reactions partition
reactions      hash by kind: ``<offset>:<broker ms>:<1 if it was late already>:`` and the record's value; the first copy
closed mark    ``<offset>:<broker ms>`` of the first copy of a closed impression
unmatched      sorted set of impression ids that have reactions and no closed mark, by the first reaction's broker ms
=============  =======================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisStore


class Progress(NamedTuple):
    """How far a reactions partition has been read. ``watermark_ms``: the newest broker time that was read; all before
    is stored."""

    offset: int
    watermark_ms: int

    def pack(self) -> bytes:
        """Return the value in Redis."""
        return b"%d:%d" % self

    @classmethod
    def unpack(cls, value: bytes) -> Progress:
        """Read the value in Redis."""
        offset, _, watermark_ms = value.partition(b":")
        return cls(int(offset), int(watermark_ms))


class Mark(NamedTuple):
    """The first copy of a closed impression: its offset and broker time."""

    offset: int
    time_ms: int

    @classmethod
    def unpack(cls, value: bytes) -> Mark:
        """Read the value in Redis."""
        offset, _, time_ms = value.partition(b":")
        return cls(int(offset), int(time_ms))


class Kept(NamedTuple):
    """The first copy of a kind of reaction. ``was_late``: it is in ``late-reactions`` already and belongs to no
    example."""

    offset: int
    time_ms: int
    was_late: bool
    value: bytes

    def pack(self) -> bytes:
        """Return the value in Redis."""
        return b"%d:%d:%d:" % (self.offset, self.time_ms, self.was_late) + self.value

    @classmethod
    def unpack(cls, packed: bytes) -> Kept:
        """Read the value in Redis."""
        offset, time_ms, was_late, value = packed.split(b":", 3)
        return cls(int(offset), int(time_ms), was_late == b"1", value)


class Seen(NamedTuple):
    """What Redis knows about a reaction before it is stored: its impression's closed mark, the first copy of its
    kind."""

    closed: Mark | None
    first: Kept | None


@dataclass(frozen=True, slots=True)
class Store:
    """A reaction to store. ``settled``: its impression may be closed; it is known and was acted on."""

    impression_id: bytes
    kind: str
    kept: Kept
    settled: bool


@dataclass(frozen=True, slots=True)
class Closing:
    """An impression that is closed now, or was before. ``earlier``: the mark that stood there; None: none did."""

    earlier: Mark | None
    reactions: Mapping[str, Kept]


@dataclass(frozen=True)
class Lifetimes:
    """How long things are kept, in milliseconds; each key is written with its time to live."""

    reaction_ms: int
    mark_ms: int
    progress_ms: int = 60 * 86_400_000


class ProgressMoved(Exception):
    """Redis knows of another progress than this reader: another one was faster, or Redis has lost its newest writes."""


class ImpressionClosed(Exception):
    """An impression was closed between looking and storing: look again."""


# KEYS: for each reaction its closed mark and its reactions. ARGV: for each its kind.
_LOOK = """
local seen = {}
for i = 1, #ARGV do
  seen[i] = {redis.call('GET', KEYS[2 * i - 1]), redis.call('HGET', KEYS[2 * i], ARGV[i])}
end
return seen
"""

# KEYS: progress, unmatched, then closed mark and reactions of each reaction.
# ARGV: progress expected ('': none), progress next, its ttl, ttl of reactions, then impression id, kind, value, time,
# settled of each. Texts are compared as numbers: Lua compares strings by the server's locale.
_STORE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 'moved' end
local n = (#KEYS - 2) / 2
for i = 1, n do
  if ARGV[5 * i + 4] == '0' and redis.call('EXISTS', KEYS[2 * i + 1]) == 1 then return 'closed' end
end
for i = 1, n do
  local mark, reactions, at = KEYS[2 * i + 1], KEYS[2 * i + 2], 5 * i
  local first = redis.call('HGET', reactions, ARGV[at + 1])
  if not first or tonumber(string.match(first, '^%d+')) > tonumber(string.match(ARGV[at + 2], '^%d+')) then
    redis.call('HSET', reactions, ARGV[at + 1], ARGV[at + 2])
    redis.call('PEXPIRE', reactions, ARGV[4])
  end
  if redis.call('EXISTS', mark) == 0 then redis.call('ZADD', KEYS[2], 'NX', ARGV[at + 3], ARGV[at]) end
end
if n > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 'stored'
"""

# KEYS: progress, unmatched, then closed mark and reactions of each impression. ARGV: window, ttl of marks, then
# impression id, offset, time of each. Closes from the first on, up to the first that is not due by the watermark *of
# this moment*: one that was read before may be from before a loss.
_CLOSE = """
local progress = redis.call('GET', KEYS[1])
local closed = {}
if progress then
  local watermark = tonumber(string.match(progress, ':(.*)$'))
  for i = 1, (#KEYS - 2) / 2 do
    local id, offset, time = ARGV[3 * i], ARGV[3 * i + 1], ARGV[3 * i + 2]
    if tonumber(time) + tonumber(ARGV[1]) >= watermark then break end
    local earlier = redis.call('SET', KEYS[2 * i + 1], offset .. ':' .. time, 'NX', 'GET', 'PX', ARGV[2])
    redis.call('ZREM', KEYS[2], id)
    closed[i] = {earlier, redis.call('HGETALL', KEYS[2 * i + 2])}
  end
end
return {progress, closed}
"""


class Ledger:
    """The keys of one partition. Every call is one round trip and raises Unavailable when Redis does not answer."""

    def __init__(self, store: RedisStore, partition: int, lifetimes: Lifetimes) -> None:
        self._store = store
        self._partition = partition
        self._lifetimes = lifetimes

    async def progress(self) -> Progress | None:
        """How far the reactions have been read; None when Redis does not know (any more)."""
        (value,) = await self._store.read([keys.join_progress(self._partition)])
        return None if value is None else Progress.unpack(value)

    async def look(self, wanted: Sequence[tuple[bytes, str]]) -> list[Seen]:
        """What is known of reactions, each named by impression id and kind."""
        if not wanted:
            return []
        names = chain.from_iterable(self._keys(impression_id) for impression_id, _ in wanted)
        async with self._store.guarded():
            found = await self._eval(_LOOK, list(names), [kind for _, kind in wanted])
        return [Seen(mark and Mark.unpack(mark), first and Kept.unpack(first)) for mark, first in found]

    async def store(self, expected: Progress | None, following: Progress, reactions: Sequence[Store]) -> None:
        """Store reactions and the progress that they bring, all or nothing.

        Raises:
            ProgressMoved: The progress in Redis is not ``expected``.
            ImpressionClosed: The impression of a reaction that is not ``settled`` is closed.
        """
        names = chain(self._shared_keys(), *(self._keys(each.impression_id) for each in reactions))
        lifetimes = self._lifetimes
        arguments: list[bytes | str | int] = [
            expected.pack() if expected else b"",
            following.pack(),
            lifetimes.progress_ms,
            lifetimes.reaction_ms,
        ]
        for each in reactions:
            arguments += [each.impression_id, each.kind, each.kept.pack(), each.kept.time_ms, int(each.settled)]
        async with self._store.guarded():
            answer = await self._eval(_STORE, list(names), arguments)
        if answer == b"moved":
            raise ProgressMoved(f"Redis does not have progress {expected} of partition {self._partition}")
        if answer == b"closed":
            raise ImpressionClosed

    async def close(
        self, impressions: Sequence[tuple[bytes, Mark]], window_ms: int
    ) -> tuple[Progress | None, list[Closing]]:
        """Close impressions (id; offset and broker time) from the first on, as far as the watermark allows.

        Returns:
            The progress by which it was decided; for each impression that is closed, a prefix of those asked for, what
            was found.
        """
        names = chain(self._shared_keys(), *(self._keys(impression_id) for impression_id, _ in impressions))
        arguments: list[bytes | str | int] = [window_ms, self._lifetimes.mark_ms]
        for impression_id, mark in impressions:
            arguments += [impression_id, mark.offset, mark.time_ms]
        async with self._store.guarded():
            progress, closed = await self._eval(_CLOSE, list(names), arguments)
        return (
            None if progress is None else Progress.unpack(progress),
            [Closing(earlier and Mark.unpack(earlier), _kept(reactions)) for earlier, reactions in closed],
        )

    async def unmatched(self, before_ms: int, limit: int) -> dict[bytes, Mapping[str, Kept]]:
        """Reactions, by impression id and kind, to at most ``limit`` impressions that were not seen, the first reaction
        before a broker time."""
        async with self._store.guarded():
            name = keys.unmatched(self._partition)
            ids: Any = await self._store.client.zrangebyscore(name, "-inf", f"({before_ms}", start=0, num=limit)
            if not ids:
                return {}
            pipeline = self._store.pipeline()
            for impression_id in ids:
                pipeline.hgetall(keys.reactions(self._partition, impression_id))
            found = await pipeline.execute()
        return {
            impression_id: {kind.decode(): Kept.unpack(value) for kind, value in reactions.items()}
            for impression_id, reactions in zip(ids, found, strict=True)
        }

    async def forget_unmatched(self, impression_ids: Sequence[bytes]) -> None:
        """Wait no longer for impressions. Their reactions are kept: should the impression come all the same, they
        count."""
        async with self._store.guarded():
            await self._store.client.zrem(keys.unmatched(self._partition), *impression_ids)

    def _shared_keys(self) -> tuple[str, str]:
        return keys.join_progress(self._partition), keys.unmatched(self._partition)

    def _keys(self, impression_id: bytes) -> tuple[str, str]:
        return keys.closed(self._partition, impression_id), keys.reactions(self._partition, impression_id)

    async def _eval(self, script: str, names: list[str], arguments: Sequence[bytes | str | int]) -> Any:
        return await self._store.client.eval(script, len(names), *names, *arguments)


def _kept(flat: Sequence[bytes]) -> dict[str, Kept]:
    """Reactions by kind, out of the flat field, value, field, value … that a script returns."""
    return {kind.decode(): Kept.unpack(value) for kind, value in zip(flat[::2], flat[1::2], strict=True)}
