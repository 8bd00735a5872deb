"""One partition of topic ``impressions``, read one join window late: closed in Redis, written as examples in a Kafka
transaction.

The delay is the same for all impressions, so the partition is a queue ordered by due time and its head is the only
timer there is. The offset is committed in the transaction that holds the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress

from banditmesh.bandits.rewards import RewardSpec
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.deadletters import Unreadable, dead_letter
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.stream import Consumed, NotYet, Offsets
from services.joiner.events import CONSUMER, Tick, read_impression, read_reaction
from services.joiner.join import SCHEMA_VERSION, Came, Joined, is_closed, join
from services.joiner.ledger import Closing, Kept, Ledger, Mark, Progress
from services.joiner.metrics import JoinerMetrics

log = get_logger(__name__)

TICK = events_pb2.Example(schema_version=SCHEMA_VERSION, tick=events_pb2.Tick()).SerializeToString(deterministic=True)
MIN_WAIT_S = 0.02
ORPHANS_AT_ONCE = 200
_NO_REWARDS = RewardSpec()

Read = list[tuple[Consumed, events_pb2.Decision | Unreadable]]


class ImpressionsProcessor:
    """See :class:`banditmesh.runtime.stream.Processor`. Its transactional id belongs to the partition: opening it
    fences the old owner."""

    def __init__(
        self,
        partition: int,
        offsets: Offsets,
        transactions: TransactionalProducer,
        *,
        ledger: Ledger,
        topics: Topics,
        group: str,
        mesh: Mesh,
        clock: Clock,
        metrics: JoinerMetrics,
        owned: MutableMapping[int, ImpressionsProcessor],
        last_end: Callable[[int], int | None],
    ) -> None:
        """``transactions`` is closed with the processor."""
        self.partition = partition
        self.next_offset = 0
        self.next_due_ms: int | None = None
        self.examples = 0
        """Written since the partition was assigned."""
        self._offsets = offsets
        self._transactions = transactions
        self._ledger = ledger
        self._topics = topics
        self._group = group
        self._mesh = mesh
        self._clock = clock
        self._metrics = metrics
        self._owned = owned
        self._last_end = last_end
        self._window_ms = round(mesh.join.window * 1000)
        self._max_age_ms = round(mesh.token.max_age * 1000)
        self._progress: Progress | None = None
        self._orphans_due_s = 0.0
        owned[partition] = self

    @property
    def end_offset(self) -> int:
        """The partition's end as last seen."""
        return max(self._last_end(self.partition) or 0, self.next_offset)

    async def start_offset(self) -> int:
        """The committed offset; the beginning when nothing is committed."""
        committed = await self._offsets.committed(self.partition)
        self.next_offset = await self._offsets.beginning(self.partition) if committed is None else committed
        return self.next_offset

    async def process(self, records: Sequence[Consumed]) -> None:
        """Close what is due, write its examples, and leave the rest for later."""
        read = [(record, _read(record)) for record in records]
        closings = await self._close(read)
        taken = _closed_prefix(read, len(closings))
        if taken:
            await self._write(read[:taken], closings)
        self.next_due_ms = records[taken].time_ms + self._window_ms if taken < len(records) else None
        await self._report_orphans()
        self._observe()
        if self.next_due_ms is not None:
            raise NotYet(self._wait_s(self.next_due_ms), taken=taken)

    async def tick(self) -> None:
        """Nothing was due: say so in the examples partition, so that whoever merges the partitions need not wait for
        this one."""
        await self._transactions.write([Record(self._topics.examples, b"", TICK, self.partition)])
        self._metrics.transactions.inc()
        await self._report_orphans()
        self._observe()

    async def close(self) -> None:
        """Give up the producer; a transaction that is open is ended by the next owner."""
        if self._owned.get(self.partition) is self:
            del self._owned[self.partition]
        with suppress(KeyError):
            self._metrics.impressions_lag.remove(str(self.partition))
        await self._transactions.close()

    async def _close(self, read: Read) -> list[Closing]:
        """Close the impressions that are due, and what was found for each of them. Asks Redis only when its answer may
        have changed."""
        waiting = [(record, decision) for record, decision in read if not isinstance(decision, Unreadable)]
        if not waiting:
            return []
        first_ms = waiting[0][0].time_ms
        if not self._is_due(first_ms):
            self._progress = await self._ledger.progress()
            if not self._is_due(first_ms):
                return []
        wanted = [(decision.impression_id, Mark(record.offset, record.time_ms)) for record, decision in waiting]
        self._progress, closings = await self._ledger.close(wanted, self._window_ms)
        return closings

    def _is_due(self, time_ms: int) -> bool:
        return self._progress is not None and is_closed(time_ms, self._window_ms, self._progress.watermark_ms)

    def _wait_s(self, due_ms: int) -> float:
        """The watermark cannot pass the due time sooner than the broker's time does, but may jump when its reader was
        behind."""
        most_s = self._mesh.join.tick_every
        missing_s = most_s if self._progress is None else (due_ms - self._progress.watermark_ms) / 1000
        return min(max(missing_s, MIN_WAIT_S), most_s)

    async def _write(self, read: Read, closings: Sequence[Closing]) -> None:
        """Write what comes of the first records, in one transaction with the offset behind them."""
        records: list[Record] = []
        outcomes: list[str] = []
        late = duplicates = redone = 0
        reasons: list[str] = []
        following = iter(closings)
        for record, decision in read:
            if isinstance(decision, Unreadable):
                log.warning(
                    "dead letter",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    error=str(decision),
                )
                records.append(dead_letter(record, decision, consumer=CONSUMER, topic=self._topics.dead_letters))
                reasons.append(decision.reason)
                continue
            closing = next(following)
            if closing.earlier is not None and closing.earlier.offset != record.offset:
                duplicates += 1  # the client has sent it twice; the first copy made, or will make, the example
                continue
            redone += closing.earlier is not None
            joined = self._join(record, decision, closing.reactions)
            key = decision.user_id.encode()
            value = joined.example.SerializeToString(deterministic=True)
            records.append(Record(self._topics.examples, key, value, self.partition))
            records += [Record(self._topics.late_reactions, key, came.value, self.partition) for came in joined.late]
            late += len(joined.late)
            outcomes.append(joined.outcome)
        next_offset = read[-1][0].offset + 1
        await self._transactions.write(
            records,
            group=self._group,
            topic=self._topics.impressions,
            partition=self.partition,
            next_offset=next_offset,
        )
        self.next_offset = next_offset
        self.examples += len(outcomes)
        metrics = self._metrics
        metrics.transactions.inc()
        metrics.late.inc(late)
        metrics.redo.inc(redone)
        metrics.duplicates.labels(kind="impression").inc(duplicates)
        for outcome in outcomes:
            metrics.examples.labels(outcome=outcome).inc()
        for reason in reasons:
            metrics.dead_letters.labels(reason=reason).inc()

    def _join(self, record: Consumed, decision: events_pb2.Decision, kept: Mapping[str, Kept]) -> Joined:
        placement = self._mesh.placements.get(decision.placement)
        if placement is None:
            self._metrics.unknown_placements.inc()
        return join(
            decision,
            events_pb2.Source(partition=record.partition, offset=record.offset),
            record.time_ms,
            [_came(each) for each in kept.values() if not each.was_late],
            _NO_REWARDS if placement is None else placement.rewards,
            round(self._mesh.join_window_s(decision.placement) * 1000),
        )

    async def _report_orphans(self) -> None:
        """Dead letters for reactions to impressions that were never tracked: all that came up to token.max_age after
        them are closed."""
        now_s = self._clock.monotonic_s()
        if now_s < self._orphans_due_s:
            return
        self._orphans_due_s = now_s + max(self._mesh.join.tick_every, 1.0)
        if self.next_due_ms is not None:
            closed_ms = self.next_due_ms - self._window_ms
        else:
            self._progress = await self._ledger.progress()
            if self._progress is None:
                return
            closed_ms = self._progress.watermark_ms - self._window_ms
        orphans = await self._ledger.unmatched(closed_ms - self._max_age_ms, ORPHANS_AT_ONCE)
        if not orphans:
            return
        letters = [self._orphan(each) for kinds in orphans.values() for each in kinds.values()]
        if letters:
            await self._transactions.write(letters)
            self._metrics.transactions.inc()
        await self._ledger.forget_unmatched(list(orphans))
        self._metrics.dead_letters.labels(reason="impression_never_tracked").inc(len(letters))

    def _orphan(self, kept: Kept) -> Record:
        reaction = read_reaction(kept.value)
        assert not isinstance(reaction, Tick)
        decision = reaction.decision
        log.warning("reaction to an impression that was never tracked", partition=self.partition, offset=kept.offset)
        record = Consumed(
            self._topics.reactions, self.partition, kept.offset, kept.time_ms, decision.user_id.encode(), kept.value
        )
        detail = (
            f"decision.impression_id {decision.impression_id.hex()}: no impression came within token.max_age, "
            f"{self._max_age_ms / 1000:g} s (or Redis has lost that it did)"
        )
        error = Unreadable("impression_never_tracked", detail)
        return dead_letter(record, error, consumer=CONSUMER, topic=self._topics.dead_letters)

    def _observe(self) -> None:
        lag = self.end_offset - self.next_offset
        self._metrics.impressions_lag.labels(partition=str(self.partition)).set(lag)


def _read(record: Consumed) -> events_pb2.Decision | Unreadable:
    try:
        return read_impression(record.value)
    except Unreadable as error:
        return error


def _closed_prefix(read: Read, closed: int) -> int:
    """How many records, from the first on, can be written: unreadable ones, and the closed ones."""
    for i, (_, decision) in enumerate(read):
        if isinstance(decision, Unreadable):
            continue
        if closed == 0:
            return i
        closed -= 1
    return len(read)


def _came(kept: Kept) -> Came:
    reaction = read_reaction(kept.value)
    assert not isinstance(reaction, Tick)  # only reactions are stored
    return Came(reaction, kept.time_ms, kept.value)
