"""What the joiner keeps of one partition in Redis: reactions, closed impressions, and how far both topics have been
read.

All keys of a partition share a hash tag, and what must not come apart is one script: Redis loses a script's writes
together or not at all, also in a fail-over to a replica that is behind. So the reactions are there iff the checkpoint
of the reactions says that they have been read, and the marks of closed impressions iff the checkpoint of the marks does
(:mod:`services.joiner.checkpoint`).

=============  =======================================================================================================
reactions      hash by key (kind, and part): ``<offset>:<broker ms>:<1 if it was late already>:`` and the record's
               value; the first copy
closed mark    ``<offset>:<broker ms>`` of the first copy of a closed impression
unmatched      sorted set of impression ids that have reactions and no closed mark, by the first reaction's broker ms
late           sorted set of late reactions that wait to be written (:mod:`services.joiner.late`), by offset:
               ``<log>:<offset>:<broker ms>:`` and the record's value
=============  =======================================================================================================
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from banditmesh.runtime import keys
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.redis import ASIDE_MS, RedisClient
from services.joiner import scripts
from services.joiner.checkpoint import TTL_MS, Checkpoint, Progress, number

REACTIONS, MARKS, SHOWN = "reactions", "marks", "shown"
"""Streams with a checkpoint in a partition."""


class Mark(NamedTuple):
    """The first copy of a closed impression: its offset and broker time."""

    offset: int
    time_ms: int

    @classmethod
    def unpack(cls, value: bytes) -> Mark:
        """Read the value in Redis."""
        offset, time_ms, *_ = value.split(b":", 2)
        return cls(number(offset), number(time_ms))


@dataclass(frozen=True, slots=True)
class StoredReaction:
    """The first copy of a reaction, as Redis keeps it.

    Attributes:
        impression_id: 16 bytes.
        key: Tells the reactions to one impression apart.
        offset, time_ms: Where it stands in its partition, and the broker's time.
        was_late: It is written to ``late-reactions``, or waits to be, and belongs to no example.
        value: The record's value.
        closed: Its impression was closed when this was decided. Not kept in Redis.
    """

    impression_id: bytes
    key: str
    offset: int
    time_ms: int
    was_late: bool
    value: bytes
    closed: bool = False

    def pack(self) -> bytes:
        """Return the value in Redis."""
        return b"%d:%d:%d:" % (self.offset, self.time_ms, self.was_late) + self.value

    @classmethod
    def unpack(cls, impression_id: bytes, key: str, packed: bytes) -> StoredReaction:
        """Read the value in Redis. Raises ValueError when it is none."""
        offset, time_ms, was_late, value = packed.split(b":", 3)
        return cls(impression_id, key, number(offset), number(time_ms), was_late == b"1", value)


class Seen(NamedTuple):
    """What Redis knows about a reaction before it is stored: its impression's closed mark, the first copy of it."""

    closed: Mark | None
    first: StoredReaction | None


class Closing(NamedTuple):
    """An impression that is closed now, or was before. ``earlier``: the mark that stood there; None: none did."""

    earlier: Mark | None
    reactions: Sequence[StoredReaction]


_UNTOUCHED = Closing(None, ())
"""What most closings are."""


class Late(NamedTuple):
    """A late reaction that waits to be written: where it stands in topic ``reactions``, its broker time, and the
    record's value."""

    log: int
    offset: int
    time_ms: int
    value: bytes

    def pack(self) -> bytes:
        """Return the value in Redis."""
        return b"%d:%d:%d:" % (self.log, self.offset, self.time_ms) + self.value

    @classmethod
    def unpack(cls, packed: bytes) -> Late:
        """Read the value in Redis. Raises ValueError when it is none."""
        log, offset, time_ms, value = packed.split(b":", 3)
        return cls(number(log), number(offset), number(time_ms), value)


class LateWritten(NamedTuple):
    """All late reactions of this log with lower offsets are in ``late-reactions``."""

    log: int
    offset: int


class Closed(NamedTuple):
    """What :meth:`Ledger.close` found, all of one moment.

    Attributes:
        progress: Of the reactions; None: Redis does not know it (any more).
        closings: Of a prefix of the impressions that were asked for.
        late: Reactions that wait to be written, the first ones by offset, :data:`LATE_AT_ONCE` at most.
        lost: How many impressions that are still open had reactions that Redis has lost; now they are read again.
    """

    progress: Progress | None
    closings: Sequence[Closing]
    late: Sequence[Late]
    lost: int = 0


LATE_AT_ONCE = 200


@dataclass(frozen=True)
class Lifetimes:
    """How long reactions and closed marks are kept, in milliseconds."""

    reaction_ms: int
    mark_ms: int


class ImpressionClosed(Exception):
    """An impression was closed between looking and storing: look again."""


class Ledger:
    """The keys of one partition. Every call is one round trip and raises Unavailable when Redis does not answer."""

    def __init__(self, redis: RedisClient, partition: int, lifetimes: Lifetimes) -> None:
        self._redis = redis
        self._partition = partition
        self._lifetimes = lifetimes
        self._before_closed = keys.closed(partition, b"")
        self._before_reactions = keys.reactions(partition, b"")

    def checkpoint(self, stream: str, log: int) -> Checkpoint:
        """The checkpoint of a stream (``reactions``, ``marks`` or ``shown``) through this partition.

        Args:
            log: Which log the stream reads.
        """
        return Checkpoint(self._redis, keys.join_progress(self._partition, stream), log)

    async def progress(self) -> Progress | None:
        """How far the reactions have been read; None when Redis does not know (any more)."""
        (value,) = await self._redis.read([keys.join_progress(self._partition, REACTIONS)])
        return Progress.unpack(value)

    async def look(self, wanted: Sequence[tuple[bytes, str]]) -> list[Seen]:
        """What is known of reactions, each named by impression id and key."""
        if not wanted:
            return []
        names = list(chain.from_iterable(self._keys(impression_id) for impression_id, _ in wanted))
        async with self._using(names):
            found = await self._eval(scripts.LOOK, names, [key for _, key in wanted])
            return [
                Seen(
                    None if mark is None else Mark.unpack(mark),
                    None if first is None else StoredReaction.unpack(*each, first),
                )
                for each, (mark, first) in zip(wanted, found, strict=True)
            ]

    async def store(self, checkpoint: Checkpoint, following: Progress, reactions: Sequence[StoredReaction]) -> None:
        """Store reactions, let the late ones among them wait to be written, and move the checkpoint, all or nothing.

        Raises:
            ProgressMoved: The checkpoint in Redis is another one than is known.
            ImpressionClosed: The impression of a reaction that was not is closed.
        """
        shared = checkpoint.key, keys.unmatched(self._partition), keys.late(self._partition)
        names = [*shared, *chain.from_iterable(self._keys(each.impression_id) for each in reactions)]
        arguments = [*checkpoint.arguments(following), self._lifetimes.reaction_ms]
        for each in reactions:
            late = Late(checkpoint.log, each.offset, each.time_ms, each.value).pack() if each.was_late else b""
            arguments += [each.impression_id, each.key, each.pack(), each.time_ms, int(each.closed), late]
        async with self._using(names):
            answer = await self._eval(scripts.STORE, names, arguments)
        checkpoint.check(answer)
        if answer == b"closed":
            raise ImpressionClosed
        checkpoint.moved(following)

    async def close(
        self, marks: Checkpoint, impressions: Sequence[tuple[bytes, Mark]], window_ms: int, written: LateWritten
    ) -> Closed:
        """Close impressions (id; offset and broker time) from the first on, as far as the watermark allows, and move
        the checkpoint of the marks behind the last one.

        Nothing is closed while Redis has not got all reactions (again) up to where late ones are ``written``, nor
        before late ones that wait fit into one answer. An impression whose reactions Redis has lost stays open, with
        those after it, and Redis forgets how far reactions are read, so that they are read again.

        Raises:
            ProgressMoved: The checkpoint of the marks in Redis is another one than is known.
        """
        reactions = keys.join_progress(self._partition, REACTIONS)
        shared = marks.key, reactions, keys.unmatched(self._partition), keys.late(self._partition)
        names = [*shared, *chain.from_iterable(self._keys(impression_id) for impression_id, _ in impressions)]
        arguments: list[bytes | str | int] = [marks.known, marks.log, TTL_MS, window_ms, self._lifetimes.mark_ms]
        arguments += [*written, LATE_AT_ONCE]
        for impression_id, mark in impressions:
            arguments += [impression_id, mark.offset, mark.time_ms]
        async with self._using(names):
            answer = await self._eval(scripts.CLOSE, names, arguments)
            marks.check(answer)
            progress, closed, moved_to, late, lost, earlier, reacted = answer
            closings = [_UNTOUCHED] * closed
            for at, flat in _numbered(reacted):
                closings[at] = Closing(None, _reactions(impressions[at][0], flat))
            for at, mark in _numbered(earlier):
                closings[at] = closings[at]._replace(earlier=Mark.unpack(mark))
            found = Closed(Progress.unpack(progress), closings, [Late.unpack(each) for each in late], lost)
        if closings and (moved := Progress.unpack(moved_to)):
            marks.moved(moved)
        return found

    async def forget_late(self, late: Sequence[Late]) -> None:
        """They are written."""
        async with self._using([keys.late(self._partition)]):
            await self._redis.client.zrem(keys.late(self._partition), *(each.pack() for each in late))

    async def reactions(self, impression_ids: Sequence[bytes]) -> list[Sequence[StoredReaction]]:
        """The reactions to each of several impressions."""
        names = [keys.reactions(self._partition, impression_id) for impression_id in impression_ids]
        async with self._using(names):
            pipeline = self._redis.pipeline()
            for name in names:
                pipeline.hgetall(name)
            found = await pipeline.execute()
            return [
                [StoredReaction.unpack(impression_id, key.decode(), value) for key, value in reactions.items()]
                for impression_id, reactions in zip(impression_ids, found, strict=True)
            ]

    async def mark_again(
        self,
        marks: Checkpoint,
        following: Progress,
        impressions: Sequence[tuple[bytes, Mark, int]],
        late: Sequence[Late] = (),
    ) -> bool:
        """Restore the marks of closed impressions (id; offset and broker time; how many reactions were found) that
        Redis has lost, and let the reactions that are late for them wait to be written.

        Returns:
            False, and nothing is done: one has got more reactions in the meantime.

        Raises:
            ProgressMoved: The checkpoint of the marks in Redis is another one than is known.
        """
        shared = marks.key, keys.unmatched(self._partition), keys.late(self._partition)
        names = [*shared, *chain.from_iterable(self._keys(impression_id) for impression_id, _, _ in impressions)]
        arguments = [*marks.arguments(following), self._lifetimes.mark_ms]
        for impression_id, mark, n in impressions:
            arguments += [impression_id, mark.offset, mark.time_ms, n]
        for each in late:
            arguments += [each.offset, each.pack()]
        async with self._using(names):
            answer = await self._eval(scripts.MARK_AGAIN, names, arguments)
        marks.check(answer)
        if answer == b"more":
            return False
        marks.moved(following)
        return True

    async def unmatched(self, before_ms: int, limit: int) -> dict[bytes, Sequence[StoredReaction]]:
        """Reactions, by impression id, to at most ``limit`` impressions that were not seen, the first reaction before a
        broker time."""
        name = keys.unmatched(self._partition)
        async with self._using([name]):
            ids: Any = await self._redis.client.zrangebyscore(name, "-inf", f"({before_ms}", start=0, num=limit)
        return dict(zip(ids, await self.reactions(ids), strict=True)) if ids else {}

    async def forget_unmatched(self, impression_ids: Sequence[bytes]) -> None:
        """Wait no longer for impressions. Their reactions are kept: should the impression come all the same, they
        count."""
        async with self._using([keys.unmatched(self._partition)]):
            await self._redis.client.zrem(keys.unmatched(self._partition), *impression_ids)

    @asynccontextmanager
    async def _using(self, names: Sequence[str]) -> AsyncIterator[None]:
        """See `RedisClient.guarded`. What cannot be read is put aside, too: another attempt finds nothing there."""
        try:
            async with self._redis.guarded(*names):
                yield
        except (ValueError, Unavailable) as error:
            if not (isinstance(error, ValueError) or "script" in str(error)) or not await self._put_aside(names):
                raise
            raise Unavailable(f"Redis had what is none of the joiner's records: {error}") from error

    async def _put_aside(self, names: Sequence[str]) -> int:
        """Put aside what is unreadable under these keys, and return how much that was: a mark whole, of hashes and sets
        the members, so that the good ones beside them count.
        """
        n = 0
        for name in names:
            wrong = await self._unreadable(name)
            if wrong is not None:
                async with self._redis.guarded(name):
                    await self._eval(scripts.PUT_ASIDE, [name, keys.aside(name)], [ASIDE_MS, *wrong])
                self._redis.put_aside(name, "what it holds is none of the joiner's records")
                n += 1
        return n

    async def _unreadable(self, name: str) -> Sequence[bytes] | None:
        """Which members of a hash or set are unreadable; none: a mark is; None: everything can be read."""
        if name == keys.late(self._partition):
            async with self._redis.guarded(name):
                waiting: Any = await self._redis.client.zrange(name, 0, -1)
            return [each for each in waiting if not _reads(Late.unpack, each)] or None
        if name.startswith(self._before_reactions):
            async with self._redis.guarded(name):
                reactions: Any = await self._redis.client.hgetall(name)
            return [key for key, value in reactions.items() if not _reads(_reactions, b"", (key, value))] or None
        if name.startswith(self._before_closed):
            (mark,) = await self._redis.read([name])
            return [] if mark is not None and not _reads(Mark.unpack, mark) else None
        return None

    def _keys(self, impression_id: bytes) -> tuple[str, str]:
        name = impression_id.hex()
        return self._before_closed + name, self._before_reactions + name

    async def _eval(self, script: str, names: list[str], arguments: Sequence[bytes | str | int]) -> Any:
        return await self._redis.client.eval(script, len(names), *names, *arguments)


def _numbered(flat: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Pairs out of the flat number, value, number, value … that a script returns, which counts from 1."""
    return zip((number - 1 for number in flat[::2]), flat[1::2], strict=True)


def _reactions(impression_id: bytes, flat: Sequence[bytes]) -> list[StoredReaction]:
    """Reactions out of the flat key, value, key, value … that a script returns."""
    return [
        StoredReaction.unpack(impression_id, key.decode(), value)
        for key, value in zip(flat[::2], flat[1::2], strict=True)
    ]


def _reads(unpack: Callable[..., object], *packed: Any) -> bool:
    try:
        unpack(*packed)
    except ValueError:
        return False
    return True
