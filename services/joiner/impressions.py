"""One partition of topic ``impressions``, read one join window late: closed in Redis, written as examples in a Kafka
transaction.

The delay is the same for all impressions, so the partition is a queue ordered by due time and its head is the only
timer there is. The offset is committed in the transaction that holds the examples.

The marks of closed impressions are in Redis, with a checkpoint that says up to which offset they are there. Where it
stands behind the offset that is committed to Kafka, Redis has lost marks: what lies between is read again and marked
again, without any output, before anything else is closed.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.stream import Consumed, NotYet, Offsets, StartOver
from services.joiner.checkpoint import Checkpoint, Progress, ProgressMoved
from services.joiner.examples import ExamplesWriter, Read, closed_prefix, read_due, read_impressions
from services.joiner.join import SCHEMA_VERSION, belongs, is_closed
from services.joiner.late import LateReactions
from services.joiner.ledger import Closed, Late, Ledger, Mark
from services.joiner.metrics import JoinerMetrics
from services.joiner.orphans import Orphans

log = get_logger(__name__)

TICK = events_pb2.Example(schema_version=SCHEMA_VERSION, tick=events_pb2.Tick()).SerializeToString(deterministic=True)
MIN_WAIT_S = 0.02
CLOSED_AT_ONCE = 500
"""Impressions that one script closes: Redis serves nobody else meanwhile, some milliseconds."""


class ImpressionsProcessor:
    """See :class:`banditmesh.runtime.stream.Processor`. Its transactional id belongs to the partition: opening it
    fences the old owner."""

    def __init__(
        self,
        partition: int,
        offsets: Offsets,
        transactions: TransactionalProducer,
        marks: Checkpoint,
        *,
        ledger: Ledger,
        topics: Topics,
        group: str,
        mesh: Mesh,
        mark_ms: int,
        clock: Clock,
        metrics: JoinerMetrics,
        owned: MutableMapping[int, ImpressionsProcessor],
        last_end: Callable[[int], int | None],
    ) -> None:
        """``transactions`` is closed with the processor. ``marks``: the checkpoint of the marks of this log;
        ``mark_ms``: how long marks are kept."""
        self.partition = partition
        self.next_offset = 0
        self.next_due_ms: int | None = None
        self._offsets = offsets
        self._transactions = transactions
        self._marks = marks
        self._marked_until = 0
        """Below this offset impressions are closed, and are only marked again."""
        self._ledger = ledger
        self._topics = topics
        self._mesh = mesh
        self._clock = clock
        self._metrics = metrics
        self._owned = owned
        self._last_end = last_end
        self._window_ms = round(mesh.join.window * 1000)
        self._mark_ms = mark_ms
        self._progress: Progress | None = None
        self._late = LateReactions(partition, topics)
        self._examples = ExamplesWriter(partition, marks.log, transactions, self._late, topics, group, mesh, metrics)
        self._orphans = Orphans(
            partition,
            transactions,
            ledger=ledger,
            topics=topics,
            max_age_ms=round(mesh.token.max_age * 1000),
            every_s=max(mesh.join.tick_every, 1.0),
            clock=clock,
            metrics=metrics,
        )
        owned[partition] = self

    @property
    def examples(self) -> int:
        """Written since the partition was assigned."""
        return self._examples.written

    @property
    def end_offset(self) -> int:
        """The partition's end as last seen."""
        return max(self._last_end(self.partition) or 0, self.next_offset)

    async def start_offset(self) -> int:
        """The committed offset, or the first one whose mark may be missing in Redis; without either the beginning.

        The beginning is committed before anything of the log is closed. So marks of a log for which nothing is
        committed mean that Kafka has forgotten it, which it does to a group that nobody was in for
        ``offsets.retention.minutes``; then the marks say it, for they are written just before.
        """
        committed = await self._offsets.committed(self.partition)
        beginning = await self._offsets.beginning(self.partition)
        await self._late.open(self._offsets)
        marks = await self._marks.read()
        if committed is None and marks is not None and marks.offset > beginning:
            log.error(
                "Kafka has forgotten the committed offset: going on where the marks of closed impressions end",
                partition=self.partition,
                offset=marks.offset,
            )
            self._metrics.progress_lost.labels(stream="impressions").inc()
            committed = marks.offset
        if committed is None or self._marks.another_log:
            # An offset that was committed for a topic of the same name that is gone means nothing.
            await self._examples.begin(beginning)
            self.next_offset = beginning
            return beginning
        if marks is None:
            lost_ms = int(self._clock.now_s() * 1000) - self._mark_ms
            marked = await self._offsets.at(self.partition, lost_ms)
            self._metrics.progress_lost.labels(stream="marks").inc()
        else:
            marked = marks.offset
        self._marked_until = committed
        self.next_offset = max(min(committed if marked is None else marked, committed), beginning)
        if self.next_offset < committed:
            log.warning(
                "marks of closed impressions are not in Redis: reading again",
                partition=self.partition,
                marked=self.next_offset,
                committed=committed,
            )
        return self.next_offset

    async def process(self, records: Sequence[Consumed]) -> None:
        """Close what is due, write its examples, and leave the rest for later."""
        try:
            again = sum(record.offset < self._marked_until for record in records)
            for first in range(0, again, CLOSED_AT_ONCE):
                await self._mark_again(records[first : min(first + CLOSED_AT_ONCE, again)])
            if again < len(records):
                await self._close_due(records[again:], again)
        except ProgressMoved as error:
            raise StartOver(str(error)) from error

    async def _close_due(self, records: Sequence[Consumed], before: int) -> None:
        """Close impressions from the first on that is due. ``before``: records of the batch that are done with."""
        read = await self._due(records)
        closed = await self._close(read)
        taken = closed_prefix(read, len(closed.closings))
        await self._write(read[:taken], closed)
        if taken:
            self.next_offset = read[taken - 1][0].offset + 1
        self.next_due_ms = records[taken].time_ms + self._window_ms if taken < len(records) else None
        await self._report_orphans()
        self._observe()
        if self.next_due_ms is not None:
            raise NotYet(self._wait_s(self.next_due_ms), taken=before + taken)

    async def _mark_again(self, records: Sequence[Consumed]) -> None:
        """Restore the marks of impressions that were closed before Redis lost them.

        Reactions to them that were read since are in time, and were counted, or late, and go where late ones go.
        """
        read = read_impressions(records)
        lost = [(record, decision) for record, decision in read if not isinstance(decision, Unreadable)]
        following = self._marks.following(records[-1].offset + 1, records[-1].time_ms)
        while True:
            found = await self._ledger.reactions([decision.impression_id for _, decision in lost])
            progress = await self._ledger.progress()  # after them: where there are any, it is there
            late = [
                Late(progress.log, each.offset, each.time_ms, each.value)
                for (record, decision), reactions in zip(lost, found, strict=True)
                for each in reactions
                if progress and not each.was_late and not belongs(each.time_ms, record.time_ms, self._window_ms)
            ]
            marks = [
                (decision.impression_id, Mark(record.offset, record.time_ms), len(reactions))
                for (record, decision), reactions in zip(lost, found, strict=True)
            ]
            if await self._ledger.mark_again(self._marks, following, marks, late):
                break
        self.next_offset = following.offset
        self._metrics.marked_again.inc(len(lost))
        self._observe()

    async def tick(self) -> None:
        """Nothing was due: say so in the examples partition, so that whoever merges the partitions need not wait for
        this one."""
        tick = Record(self._topics.examples, b"", TICK, self.partition)
        try:
            closed = await self._ledger.close(self._marks, [], self._window_ms, self._late.written)
            await self._write([], closed, [tick])
            await self._report_orphans()
        except ProgressMoved as error:
            raise StartOver(str(error)) from error
        self._observe()

    async def close(self) -> None:
        """Give up the producer; a transaction that is open is ended by the next owner."""
        if self._owned.get(self.partition) is self:
            del self._owned[self.partition]
        with suppress(KeyError):
            self._metrics.impressions_lag.remove(str(self.partition))
        await self._transactions.close()

    async def _write(self, read: Read, closed: Closed, ticks: Sequence[Record] = ()) -> None:
        """See :class:`ExamplesWriter`."""
        await self._examples.write(read, closed, ticks)
        if closed.late:
            await self._ledger.forget_late(closed.late)

    async def _due(self, records: Sequence[Consumed]) -> Read:
        """What can be closed by what is known of the watermark. Asks Redis only when its answer may have changed."""
        read = read_due(records, self._is_due)
        if len(read) < len(records):
            self._progress = await self._ledger.progress()
            read = [*read, *read_due(records[len(read) :], self._is_due)]
        return read

    async def _close(self, read: Read) -> Closed:
        """Close impressions from the first on, and what was found for each of them.

        One transaction may hold what several scripts have closed: each moves the checkpoint of the marks. How far
        reactions have been read, and which late ones wait, is taken from the last script that closed something. One
        that closes nothing, because too many late ones wait, may be behind what the others found.
        """
        wanted = [
            (decision.impression_id, Mark(record.offset, record.time_ms))
            for record, decision in read
            if not isinstance(decision, Unreadable)
        ]
        found = Closed(self._progress, [], [])
        while len(found.closings) < len(wanted):
            n = len(found.closings)
            part = wanted[n : n + CLOSED_AT_ONCE]
            closed = await self._ledger.close(self._marks, part, self._window_ms, self._late.written)
            self._progress = closed.progress
            if closed.lost:
                self._say_lost(closed.lost)
            if not n or closed.closings:
                found = closed._replace(closings=[*found.closings, *closed.closings])
            if len(closed.closings) < len(part):
                break
        return found

    def _say_lost(self, impressions: int) -> None:
        log.error(
            "Redis has lost reactions but not how far they were read: does it evict keys? reading them again",
            partition=self.partition,
            impressions=impressions,
        )
        self._metrics.reactions_lost.inc(impressions)

    def _is_due(self, time_ms: int) -> bool:
        return self._progress is not None and is_closed(time_ms, self._window_ms, self._progress.watermark_ms)

    def _wait_s(self, due_ms: int) -> float:
        """The watermark cannot pass the due time sooner than the broker's time does, but may jump when its reader was
        behind."""
        most_s = self._mesh.join.tick_every
        known = self._progress is not None and not self._late.is_ahead_of(self._progress)
        missing_s = (due_ms - self._progress.watermark_ms) / 1000 if self._progress and known else most_s
        return min(max(missing_s, MIN_WAIT_S), most_s)

    async def _report_orphans(self) -> None:
        """See :class:`Orphans`."""
        if self._orphans.is_due():
            await self._marks.verify()  # without all marks an impression that is closed would seem never to have come
            closed_ms = await self._closed_until_ms()
            if closed_ms is not None:
                await self._orphans.report(closed_ms, self._has_read_all)

    async def _has_read_all(self) -> bool:
        """Whether there is no impression that waits to be read."""
        return self.next_due_ms is not None or await self._offsets.end(self.partition) <= self.next_offset

    async def _closed_until_ms(self) -> int | None:
        """Broker time up to which all impressions are closed, provided that all were read; None: not known."""
        if self.next_offset < self._marked_until:
            return None
        if self.next_due_ms is not None:
            return self.next_due_ms - self._window_ms
        # Asked for before the partition's end is: what is appended after it is newer.
        self._progress = await self._ledger.progress()
        return None if self._progress is None else self._progress.watermark_ms - self._window_ms

    def _observe(self) -> None:
        lag = self.end_offset - self.next_offset
        self._metrics.impressions_lag.labels(partition=str(self.partition)).set(lag)
