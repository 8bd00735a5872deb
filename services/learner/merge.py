"""One order of all partitions, whatever order they arrive in.

Records are merged by (broker time, partition, offset). They leave in *buckets* of one second of broker time, and a
bucket leaves only when every partition has been read past its end. So what stands in a bucket, and in which order, is
a property of the topic alone; a learner that pauses between two buckets only (to publish, to be restarted) learns the
same model, byte for byte, as one that never pauses.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

BUCKET_MS = 1000
"""Changing it changes the borders of learning batches, and so the last bits of models."""
BUFFERED = 20_000
"""Records of one partition that wait for slower partitions before it is read no further."""


class Record(NamedTuple, Generic[T]):
    """A consumed record. ``body`` is None when it only moves the time on: a tick, or what nobody here learns from."""

    time_ms: int
    """Broker time."""
    partition: int
    offset: int
    body: T | None


@dataclass(frozen=True)
class Cut(Generic[T]):
    """What may be applied now, and where every partition stands afterwards."""

    buckets: list[list[Record[T]]]
    """In order; the first one is what came out of order, if anything did."""
    positions: dict[int, int]
    """Partition → the offset to go on with once all buckets are applied."""
    watermark_ms: int
    """Broker time before which everything is contained."""
    out_of_order: int
    """Records of the first bucket whose time had passed already, since their partition was no longer waited for."""


@dataclass
class _Partition(Generic[T]):
    """One partition."""

    next_offset: int
    seen_ms: int | None = None
    """Broker time of the newest consumed record. Never falls: a new leader's clock may lag behind the old one's."""
    released: bool = False
    queue: deque[Record[T]] = field(default_factory=deque)


class Merge(Generic[T]):
    """Merges partitions. Not thread-safe; does no I/O."""

    def __init__(self, positions: Mapping[int, int]) -> None:
        """``positions``: every partition of the topic, with the offset that it is read from."""
        self._partitions: dict[int, _Partition[T]] = {
            partition: _Partition(offset) for partition, offset in sorted(positions.items())
        }
        self._until_ms = 0
        self._late: list[Record[T]] = []

    @property
    def buffered(self) -> int:
        """Records that wait."""
        return len(self._late) + sum(len(state.queue) for state in self._partitions.values())

    @property
    def released(self) -> list[int]:
        """Partitions that are not waited for."""
        return [partition for partition, state in self._partitions.items() if state.released]

    def add(self, partition: int, records: Iterable[Record[T]]) -> None:
        """Take in consumed records of a partition, in the order of their offsets."""
        state = self._partitions[partition]
        for record in records:
            state.next_offset = record.offset + 1
            state.seen_ms = max(record.time_ms, state.seen_ms or 0)
            if state.seen_ms < self._until_ms:
                self._late.append(record)
            else:
                state.released = False
                state.queue.append(
                    record if record.time_ms == state.seen_ms else record._replace(time_ms=state.seen_ms)
                )

    def release(self, partition: int) -> None:
        """Wait no longer for this partition; until it delivers something that is not too late."""
        self._partitions[partition].released = True

    def wanted(self) -> list[int]:
        """The partitions to read: those that others wait for, and those whose buffer has room."""
        slowest_ms = min((state.seen_ms or 0 for state in self._partitions.values() if not state.released), default=0)
        return [
            partition
            for partition, state in self._partitions.items()
            if len(state.queue) < BUFFERED or (state.seen_ms or 0) // BUCKET_MS <= slowest_ms // BUCKET_MS
        ]

    def take(self, enough: int) -> Cut[T] | None:
        """The complete buckets, oldest first, but no further one once ``enough`` records are in. None if none is."""
        end_ms = self._complete_until_ms()
        late, self._late = self._late, []
        buckets: list[list[Record[T]]] = [late] if late else []
        taken = bucket_end_ms = 0
        heads = [(state.queue[0].time_ms, partition) for partition, state in self._partitions.items() if state.queue]
        heapq.heapify(heads)
        while heads and heads[0][0] < end_ms:
            time_ms, partition = heads[0]
            if time_ms >= bucket_end_ms:
                if taken >= enough:
                    end_ms = bucket_end_ms
                    break
                buckets.append([])
                bucket_end_ms = _bucket_start_ms(time_ms) + BUCKET_MS
            queue = self._partitions[partition].queue
            buckets[-1].append(queue.popleft())
            taken += 1
            if queue:
                heapq.heapreplace(heads, (queue[0].time_ms, partition))
            else:
                heapq.heappop(heads)
        if not buckets:
            return None
        self._until_ms = max(self._until_ms, end_ms)
        return Cut(buckets, self._positions(), self._until_ms, len(late))

    def _complete_until_ms(self) -> int:
        """The border that every partition has been read up to; when none is waited for, the end of all that is here."""
        waited = [state for state in self._partitions.values() if not state.released]
        if waited:
            return _bucket_start_ms(min(state.seen_ms or 0 for state in waited))
        return _bucket_start_ms(max((state.seen_ms or 0 for state in self._partitions.values()), default=0)) + BUCKET_MS

    def _positions(self) -> dict[int, int]:
        return {
            partition: state.queue[0].offset if state.queue else state.next_offset
            for partition, state in self._partitions.items()
        }


def _bucket_start_ms(time_ms: int) -> int:
    return time_ms - time_ms % BUCKET_MS
