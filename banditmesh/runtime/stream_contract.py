"""What the parts of a stream expect of each other: what blocks, what raises, who remembers. See
:mod:`banditmesh.runtime.stream`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Consumed(NamedTuple):
    """A record as it was read. ``time_ms`` is the broker's (``LogAppendTime``). A missing key or value is empty."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes
    value: bytes


class NotYet(Exception):
    """Raised by ``process``: the first ``taken`` records are done with; offer the rest again after
    ``retry_after_s``."""

    def __init__(self, retry_after_s: float, *, taken: int = 0) -> None:
        super().__init__(f"not before {retry_after_s:g} s")
        self.retry_after_s = retry_after_s
        self.taken = taken


class StartOver(Exception):
    """Raised by a processor whose position is not what it was: open the partition anew, without a pause."""


class Fenced(Exception):
    """Raised by a processor: another owner of the partition has come up, or the broker has ended the transaction. Leave
    the group, join again."""


class OutOfRange(Exception):
    """Raised by a source: these partitions no longer hold the offsets that were asked for (retention has deleted
    them)."""

    def __init__(self, partitions: frozenset[int]) -> None:
        super().__init__(f"the offset is out of range in partitions {sorted(partitions)}")
        self.partitions = partitions


class Offsets(Protocol):
    """Where a partition can be read from. Each call raises Unavailable when the broker does not answer in time."""

    async def committed(self, partition: int) -> int | None:
        """The group's committed offset; None when nothing is committed. Only exact after the old owner has been
        fenced."""
        ...

    async def noted(self, topic: str, partition: int) -> tuple[int, str] | None:
        """What the group has committed in a partition of another topic: offset, and the text that was committed with
        it. Exact as :meth:`committed` is."""
        ...

    async def beginning(self, partition: int) -> int:
        """The first offset that still exists."""
        ...

    async def end(self, partition: int) -> int:
        """The offset that the next record will get."""
        ...

    async def at(self, partition: int, time_ms: int) -> int | None:
        """The first offset whose broker time is at or after ``time_ms``; None when there is none."""
        ...

    async def log(self, partition: int) -> int:
        """A number, > 0, that names this partition of this very topic: another one when the topic was made anew.
        Offsets that are kept outside Kafka mean nothing without it."""
        ...

    def report(self, partition: int, offset: int) -> None:
        """Show people's tools that the group has come to an offset. A report may be lost; nothing is decided by it, and
        it must not be used for a group whose committed offset decides."""
        ...


class Processor(Protocol):
    """Works on one partition, from its assignment until it is revoked. The calls of one processor never overlap."""

    async def start_offset(self) -> int:
        """Called once, first, when no older owner can write any more: the offset to start from. An offset below the
        partition's beginning means the beginning (counted); one beyond its end is an error that is tried again."""
        ...

    async def process(self, records: Sequence[Consumed]) -> None:
        """Take records, at least one, in order. May block for as long as the stream's ``process_deadline_s``; a longer
        call is cancelled and the processor closed. Returns: all of them are done with. Raises :class:`NotYet`,
        :class:`StartOver`, :class:`Fenced`, or any error."""
        ...

    async def tick(self) -> None:
        """Called when nothing was taken for ``tick_every_s``, and again after as long. Deadline and errors as for
        ``process``."""
        ...

    async def close(self) -> None:
        """Called once, last, also after an error or a cancellation. Must not wait for anything that may not come."""
        ...


Open = Callable[[int, Offsets], Awaitable[Processor]]
"""Opens the processor of a partition. For a transactional one this is where the old owner is fenced."""


class Source(Offsets, Protocol):
    """One membership of a consumer group on one topic; used once, from ``start`` to ``stop``."""

    async def start(self, assigned: Callable[[frozenset[int]], None], revoked: Callable[[], Awaitable[None]]) -> None:
        """Join the group. ``assigned`` is called with all partitions, all paused, after each rebalance, ``revoked``
        before it; until ``revoked`` returns, the partitions are not given to others (but not for longer than the
        session timeout). Raises Unavailable."""
        ...

    async def fetch(self, timeout_s: float) -> Mapping[int, Sequence[Consumed]]:
        """Records of partitions that are not paused, by partition; nothing when none came in time. Raises Unavailable,
        OutOfRange."""
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Go on at an offset. Raises Unavailable when the partition is not assigned any more."""
        ...

    def pause(self, partition: int) -> None:
        """Fetch no more of a partition."""
        ...

    def resume(self, partition: int) -> None:
        """Fetch a partition again. Nothing happens when it is not assigned any more."""
        ...

    def last_end(self, partition: int) -> int | None:
        """The partition's end as the last fetch saw it; None before that."""
        ...

    async def stop(self) -> None:
        """Leave the group, disconnect. Does not call ``revoked``, and does not wait for brokers that are away."""
        ...


@dataclass(frozen=True)
class StreamOptions:
    """How a stream runs."""

    tick_every_s: float = 1.0
    batch: int = 500
    """Records that one ``process`` call gets at most."""
    buffer: int = 2000
    """A worker that holds so many records is paused until it holds half of them."""
    poll_s: float = 0.1
    open_deadline_s: float = 30.0
    process_deadline_s: float = 35.0
    drain_s: float = 5.0
    """What a running ``process`` call gets to finish when its partition is revoked; less than the group's session
    timeout."""
    first_pause_s: float = 0.1
    most_pause_s: float = 5.0
    may_work: Callable[[], Awaitable[None]] | None = None
    """Asked before a partition is opened and before each ``process`` and ``tick``: raises when work would be lost. The
    partition is then opened anew, with pauses, until it may; no record is taken meanwhile."""
