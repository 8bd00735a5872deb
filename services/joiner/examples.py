"""What comes of impressions that are closed: an example each, late reactions, dead letters, in one Kafka transaction
with the offset behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from banditmesh.bandits.rewards import RewardSpec
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.deadletters import OUTGROWN, Unreadable, dead_letter
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.stream import Consumed
from services.joiner.events import CONSUMER, read_impression
from services.joiner.join import Joined, join
from services.joiner.late import LateReactions
from services.joiner.ledger import Closed, StoredReaction
from services.joiner.metrics import JoinerMetrics
from services.joiner.orphans import read_again

log = get_logger(__name__)

_NO_REWARDS = RewardSpec()

Read = Sequence[tuple[Consumed, events_pb2.Decision | Unreadable]]


def read_impressions(records: Sequence[Consumed]) -> Read:
    """The decision in each record, or what is wrong with it."""
    return [(record, _read(record)) for record in records]


def read_due(records: Sequence[Consumed], is_due: Callable[[int], bool]) -> Read:
    """The same of records from the first on, up to the first impression that is not due by its broker time. What waits
    behind it is not looked at each time that it is offered again."""
    read: list[tuple[Consumed, events_pb2.Decision | Unreadable]] = []
    for record in records:
        decision = _read(record)
        if not is_due(record.time_ms) and not isinstance(decision, Unreadable):
            break
        read.append((record, decision))
    return read


def closed_prefix(read: Read, closed: int) -> int:
    """How many records, from the first on, can be written when so many impressions are closed: unreadable ones go with
    them."""
    for i, (_, decision) in enumerate(read):
        if isinstance(decision, Unreadable):
            continue
        if closed == 0:
            return i
        closed -= 1
    return len(read)


class _Rules(NamedTuple):
    """How the impressions of a placement are joined."""

    rewards: RewardSpec
    window_ms: int


@dataclass(eq=False)
class ExamplesWriter:
    """Writes for one partition of topic ``impressions``.

    Attributes:
        log: Which log the offsets count; see :class:`banditmesh.runtime.user_record.Position`.
        late: What waits to be written to ``late-reactions``.
        group: The consumer group that the offsets are committed for.
        written: Examples, since the partition was assigned.
    """

    partition: int
    log: int
    transactions: TransactionalProducer
    late: LateReactions
    topics: Topics
    group: str
    mesh: Mesh
    metrics: JoinerMetrics
    written: int = 0
    _rules: dict[str, _Rules] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._source = events_pb2.Source(partition=self.partition, log=self.log)
        self._at = self.topics.impressions, self.partition

    async def begin(self, offset: int) -> None:
        """Commit where a log begins. Raises Unavailable."""
        await self.transactions.write([], group=self.group, offsets={self._at: (offset, "")})

    async def write(self, read: Read, closed: Closed, ticks: Sequence[Record] = ()) -> None:
        """Write what comes of records and the late reactions that wait, in one transaction with the offsets behind
        them. Does nothing where there is nothing to write.

        Args:
            read: Records of impressions from the next one on.
            closed: What was found for the readable ones among them.
            ticks: What is written before.
        """
        reasons: Counter[str] = Counter()
        late = self.late.waiting(closed)
        records: list[Record] = [*ticks, *(self._late(each, reasons) for each in late)]
        outcomes: Counter[str] = Counter()
        late_n = len(late)
        duplicates = redone = 0
        clipped: Counter[str] = Counter()
        closings = iter(closed.closings)
        for record, decision in read:
            if isinstance(decision, Unreadable):
                records.append(self._letter(record, decision, reasons))
                continue
            closing = next(closings)
            if closing.earlier is not None and closing.earlier.offset != record.offset:
                duplicates += 1  # the client has sent it twice; the first copy made, or will make, the example
                continue
            redone += closing.earlier is not None
            joined = self._join(record, decision, closing.reactions)
            key = decision.user_id.encode()
            value = joined.example.SerializeToString(deterministic=True)
            fitting = self._fitting(Record(self.topics.examples, key, value, self.partition), record, reasons)
            records.append(fitting)
            for each in joined.late:
                origin = Consumed(self.topics.reactions, self.partition, each.offset, each.time_ms, key, each.value)
                records.append(self._late(origin, reasons))
            late_n += len(joined.late)
            if fitting.topic == self.topics.examples:
                outcomes[joined.outcome] += 1
            if joined.clipped:
                clipped[decision.placement] += 1
        if not (read or records):
            return
        offsets = {self._at: (read[-1][0].offset + 1, "")} if read else {}
        if late_n:
            following = self.late.following(closed)
            offsets |= self.late.offsets(following)
        await self.transactions.write(records, group=self.group, offsets=offsets)
        if late_n:
            self.late.written = following
        self.written += outcomes.total()
        metrics = self.metrics
        metrics.transactions.inc()
        metrics.late.inc(late_n)
        metrics.redo.inc(redone)
        metrics.duplicates.labels(kind="impression").inc(duplicates)
        for outcome, count in outcomes.items():
            metrics.examples.labels(outcome=outcome).inc(count)
        for placement, count in clipped.items():
            metrics.clipped.labels(placement=placement).inc(count)
        for reason, count in reasons.items():
            metrics.dead_letters.labels(reason=reason).inc(count)

    def _late(self, reaction: Consumed, reasons: Counter[str]) -> Record:
        record = Record(self.topics.late_reactions, reaction.key, reaction.value, self.partition)
        return self._fitting(record, reaction, reasons)

    def _fitting(self, record: Record, origin: Consumed, reasons: Counter[str]) -> Record:
        """The record, or where its topic does not take it a dead letter of what it came from."""
        if self.transactions.sizes.takes(record.topic, record.size):
            return record
        said = f"what came of it has {record.size} bytes, more than topic {record.topic} takes (max.message.bytes)"
        return self._letter(origin, Unreadable(OUTGROWN, said), reasons)

    def _letter(self, record: Consumed, error: Unreadable, reasons: Counter[str]) -> Record:
        log.warning(
            "dead letter", topic=record.topic, partition=record.partition, offset=record.offset, error=str(error)
        )
        reasons[error.reason] += 1
        topic = self.topics.dead_letters
        room = self.transactions.sizes.room(topic)
        return dead_letter(record, error, consumer=CONSUMER, topic=topic, most_bytes=room)

    def _join(self, record: Consumed, decision: events_pb2.Decision, stored: Sequence[StoredReaction]) -> Joined:
        rules = self._rules.get(decision.placement) or self._rules_of(decision.placement)
        self._source.offset = record.offset
        return join(
            decision,
            self._source,
            record.time_ms,
            [read for each in stored if not each.was_late and (read := read_again(each)) is not None],
            rules.rewards,
            rules.window_ms,
        )

    def _rules_of(self, name: str) -> _Rules:
        """Those of a placement of mesh.yaml are kept; of others there may be any number."""
        placement = self.mesh.placements.get(name)
        window_ms = round(self.mesh.join_window_s(name) * 1000)
        if placement is None:
            self.metrics.unknown_placements.inc()
            return _Rules(_NO_REWARDS, window_ms)
        rules = self._rules[name] = _Rules(placement.rewards, window_ms)
        return rules


def _read(record: Consumed) -> events_pb2.Decision | Unreadable:
    try:
        return read_impression(record.value)
    except Unreadable as error:
        return error
