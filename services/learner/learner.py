"""The loop: read, merge, learn."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.stream import Consumed
from services.learner.examples import columns, decode
from services.learner.merge import Cut, Merge, Record
from services.learner.metrics import LearnerMetrics
from services.learner.reader import Reader
from services.learner.shard import Shard

log = get_logger(__name__)

POLL_S = 0.2
AT_ONCE = 20_000
"""Examples after which a piece of work on the learning thread ends, so that a snapshot or a stop need not wait long."""
RETRY_S = 1.0

OpenReader = Callable[[Mapping[int, int]], AbstractAsyncContextManager[Reader]]
GiveUp = Callable[[Consumed, Unreadable], Awaitable[None]]


class Learner:
    """Feeds every shard of this replica from one reader.

    ``learning`` is held while a piece of work changes shards; who holds it finds all of them whole and standing still.
    """

    def __init__(
        self,
        shards: Iterable[Shard],
        placements: frozenset[str],
        open_reader: OpenReader,
        give_up: GiveUp,
        thread: ThreadPoolExecutor,
        clock: Clock,
        metrics: LearnerMetrics,
        *,
        stall_after_s: float,
    ) -> None:
        """
        Args:
            placements: All that mesh.yaml has, whoever learns them.
            open_reader: Opens the topic at given positions.
            give_up: Sends a record to the dead letters; returns when it is safe there.
            thread: The one thread that touches shards.
            stall_after_s: A partition that has nothing more to read for so long is not waited for.
        """
        self._shards = list(shards)
        self._placements = placements
        self._by_placement: dict[str, list[Shard]] = defaultdict(list)
        for shard in self._shards:
            self._by_placement[shard.id.placement].append(shard)
        self._open_reader = open_reader
        self._give_up = give_up
        self._thread = thread
        self._clock = clock
        self._metrics = metrics
        self._stall_after_s = stall_after_s
        self._rewind = False
        self.learning = asyncio.Lock()
        self.turned = asyncio.Condition()
        """Notified after each turn of the loop."""

    async def run(self) -> None:
        """Learn until cancelled. Raises nothing that a later attempt could mend."""
        if not self._shards:
            log.warning("no model belongs to this learner: there are more learners than models")
            await asyncio.Event().wait()
        while True:
            try:
                async with self._open_reader(self._positions()) as reader:
                    await self._follow(reader)
            except Unavailable as error:
                log.warning("examples cannot be read; trying again", reason=str(error), retry_s=RETRY_S)
                await self._clock.sleep(RETRY_S)

    def rewind(self) -> None:
        """Read anew from where the shards stand. Call it while ``learning`` is held."""
        self._rewind = True

    def _positions(self) -> dict[int, int]:
        """Where the rearmost shard stands, in each partition that all shards know."""
        self._rewind = False
        known = set.intersection(*(set(shard.offsets) for shard in self._shards))
        return {partition: min(shard.offsets[partition] for shard in self._shards) for partition in sorted(known)}

    async def _follow(self, reader: Reader) -> None:
        """Learn from this reader until it must be opened anew."""
        merge: Merge[events_pb2.Example] = Merge(reader.positions)
        heard_s = dict.fromkeys(reader.positions, self._clock.monotonic_s())
        lost = 0
        while not self._rewind:
            for partition, consumed in (await reader.read(merge.wanted(), POLL_S)).items():
                heard_s[partition] = self._clock.monotonic_s()
                merge.add(partition, [await self._record(each) for each in consumed])
            await self._release_silent(merge, reader, heard_s)
            while (cut := merge.take(AT_ONCE)) is not None and not self._rewind:
                await self._apply(cut)
            self._metrics.lost.inc(reader.lost - lost)
            lost = reader.lost
            self._show(merge, reader)
            async with self.turned:
                self.turned.notify_all()
            if reader.grown():
                log.warning("the topic has other partitions than before", read=sorted(reader.positions))
                return

    async def _record(self, consumed: Consumed) -> Record[events_pb2.Example]:
        """A record for the merge; one that nobody can read is a dead letter before it counts as read."""
        example: events_pb2.Example | None = None
        try:
            example = decode(consumed.value)
        except Unreadable as error:
            self._metrics.dead_letters.labels(reason=error.reason).inc()
            log.warning("dead letter", partition=consumed.partition, offset=consumed.offset, reason=str(error))
            await self._give_up(consumed, error)
        if example is not None:
            placement = example.joined.decision.placement
            if placement not in self._placements:
                self._metrics.unknown_placement.inc()
            if placement not in self._by_placement:
                example = None
        return Record(consumed.time_ms, consumed.partition, consumed.offset, example)

    async def _release_silent(
        self, merge: Merge[events_pb2.Example], reader: Reader, heard_s: dict[int, float]
    ) -> None:
        """Stop waiting for partitions in which, by the broker's own word, nothing has happened for long.

        A partition whose broker does not answer is waited for: going on without it would change the order.
        """
        now_s = self._clock.monotonic_s()
        released = merge.released
        for partition, since_s in heard_s.items():
            if partition in released or now_s - since_s < self._stall_after_s:
                continue
            heard_s[partition] = now_s
            if await reader.is_at_end(partition):
                log.warning("partition is silent and not waited for", partition=partition, silent_s=now_s - since_s)
                merge.release(partition)

    async def _apply(self, cut: Cut[events_pb2.Example]) -> None:
        async with self.learning:
            if self._rewind:  # the shards do not stand where this cut begins any more
                return
            with self._metrics.learn.time():
                await asyncio.get_running_loop().run_in_executor(self._thread, self._learn, cut)
        if cut.out_of_order:
            self._metrics.out_of_order.inc(cut.out_of_order)
            log.warning("records came after their turn", records=cut.out_of_order)
        self._metrics.watermark.set(cut.watermark_ms / 1000)

    def _learn(self, cut: Cut[events_pb2.Example]) -> None:
        """On the learning thread: all shards take in all buckets, then note where they stand."""
        for bucket in cut.buckets:
            rows: dict[str, list[tuple[int, int, events_pb2.Example]]] = defaultdict(list)
            for record in bucket:
                if record.body is not None:
                    rows[record.body.joined.decision.placement].append((record.partition, record.offset, record.body))
            for placement, of_placement in rows.items():
                batch = columns(of_placement)
                for shard in self._by_placement[placement]:
                    before = shard.duplicates
                    self._metrics.applied.labels(*shard.id).inc(shard.learn(batch))
                    self._metrics.duplicates.labels(*shard.id).inc(shard.duplicates - before)
        for shard in self._shards:
            shard.advance(cut.positions, cut.watermark_ms)

    def _show(self, merge: Merge[events_pb2.Example], reader: Reader) -> None:
        self._metrics.buffered.set(merge.buffered)
        self._metrics.stalled.set(len(merge.released))
        for partition, lag in reader.lag().items():
            self._metrics.lag.labels(partition=partition).set(lag)
