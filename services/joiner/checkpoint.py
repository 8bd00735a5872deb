"""Where a stream's progress through one partition lives, and how it moves together with its data.

A checkpoint is one Redis key in the hash tag of its partition. What it decides, it decides alone; the offset that the
consumer group shows in Kafka is a report for people's tools, except for topic ``impressions``, whose committed offset
stands in the transaction with the examples. A commit has four steps:

1. :meth:`Checkpoint.read`, when the partition is opened: where to go on. Progress of another log (the topic was made
   anew, or has another prefix) means nothing, and is replaced by the first commit.
2. What may be done twice is done: records that may be repeated are sent, user records are changed, each guarded by the
   position that stands in it. Before a user record is changed, :meth:`Checkpoint.verify` says whether Redis still has
   the progress that this owner knows: into a Redis that has lost its data nothing is written that would seem newer
   than what is read again.
3. One script, which begins with :data:`IS_KNOWN`, writes the data and moves the checkpoint: all or nothing. Redis
   loses a script's writes together, also in a fail-over, so data are there iff the checkpoint says so.
4. The position is reported to the consumer group.

Whoever finds another progress than he knows has written nothing, and opens the partition anew: a zombie, whose
successor has moved the checkpoint, and an owner under whom Redis went back in time, alike.
"""

from __future__ import annotations

from typing import NamedTuple

from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.user_record import ANY_LOG

log = get_logger(__name__)

TTL_MS = 60 * 86_400_000
_MOST_DIGITS = 20
_SHOWN_BYTES = 80
LOST = b"lost:"
"""Stands before a broker time in place of a progress; releases that do not know it find no progress there."""

IS_KNOWN = "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 'moved' end\n"
"""First line of a script that moves a checkpoint. KEYS[1]: the checkpoint; ARGV[1]: what it must hold."""
MOVE = "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])\n"
"""Moves it. ARGV[2]: what it holds from now on; ARGV[3]: its time to live, ms."""

_MOVE_ALONE = IS_KNOWN + MOVE + "return 'stored'"


class Progress(NamedTuple):
    """How far a partition has been read. ``watermark_ms``: the newest broker time that was read; ``log``: the log that
    the offset counts."""

    offset: int
    watermark_ms: int
    log: int = ANY_LOG

    def pack(self) -> bytes:
        """Return the value in Redis."""
        return b"%d:%d:%d" % self

    @classmethod
    def unpack(cls, value: bytes | None) -> Progress | None:
        """Read the value in Redis; one of a release that knew no logs has no third part. None: it is no progress, so
        nothing is known, as when there is no value."""
        try:
            offset, watermark_ms, *log = (value or b"").split(b":")
            return cls(number(offset), number(watermark_ms), number(log[0]) if log else ANY_LOG)
        except ValueError:
            return None


def number(digits: bytes) -> int:
    """Read a number as the scripts read it. Raises ValueError when it is none, or more than 64 bits hold."""
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
        raise ValueError(f"{digits[:40]!r} is no number")
    return int(digits)


class ProgressMoved(Exception):
    """Redis knows of another progress than this reader: another one was faster, or Redis has lost its newest writes."""


class Checkpoint:
    """One stream's progress through one partition. Every call is one round trip, and raises Unavailable when Redis does
    not answer.

    Attributes:
        progress: The progress that this owner knows; None: none of this log.
        another_log: Whether Redis had progress of another log when it was read.
        lost_since_ms: Broker time since which Redis has lost what was stored, as the reader of it has found and said in
            place of the progress; None: nobody has.
    """

    def __init__(self, redis: RedisClient, key: str, log: int) -> None:
        """``log``: the log that is read, from ``Offsets.log``."""
        self.key = key
        self.log = log
        self.progress: Progress | None = None
        self.another_log = False
        self.lost_since_ms: int | None = None
        self.known = b""
        """The bytes that must stand in Redis; empty: nothing."""
        self._redis = redis

    async def read(self) -> Progress | None:
        """Step 1: the progress to go on from."""
        (value,) = await self._redis.read([self.key])
        self.known = value or b""
        found = Progress.unpack(value)
        said, _, since_ms = (value or b"").partition(LOST)
        self.lost_since_ms = int(since_ms) if not said and since_ms.isdigit() else None
        if value is not None and found is None and self.lost_since_ms is None:
            log.error("a checkpoint in Redis cannot be read and is replaced", checkpoint=self.key, value=_shown(value))
        self.another_log = found is not None and found.log not in (self.log, ANY_LOG)
        self.progress = None if self.another_log else found
        return self.progress

    async def verify(self) -> None:
        """Step 2: raise ProgressMoved unless Redis still has what this owner knows."""
        (value,) = await self._redis.read([self.key])
        self.check(b"moved" if (value or b"") != self.known else b"")

    def following(self, offset: int, watermark_ms: int) -> Progress:
        """The progress after a batch: its end, and the newest broker time in it or before."""
        before_ms = self.progress.watermark_ms if self.progress else 0
        return Progress(offset, max(watermark_ms, before_ms), self.log)

    def arguments(self, following: Progress) -> list[bytes | str | int]:
        """Step 3: ARGV[1] to ARGV[3] of a script with :data:`IS_KNOWN` and :data:`MOVE`."""
        return [self.known, following.pack(), TTL_MS]

    def check(self, answer: object) -> None:
        """Raise ProgressMoved when a script's answer says so."""
        if answer == b"moved":
            raise ProgressMoved(f"{self.key} in Redis is not {_shown(self.known) or 'empty'} any more")

    def moved(self, following: Progress) -> None:
        """Note that the script has moved it."""
        self.known, self.progress = following.pack(), following

    async def move(self, following: Progress) -> None:
        """Step 3 of a stream that has no data in this hash tag. Raises ProgressMoved."""
        async with self._redis.guarded(self.key):
            answer = await self._redis.client.eval(_MOVE_ALONE, 1, self.key, *self.arguments(following))
        self.check(answer)
        self.moved(following)


def _shown(value: bytes) -> str:
    """The beginning of a value, for people."""
    return value[:_SHOWN_BYTES].decode(errors="backslashreplace")
