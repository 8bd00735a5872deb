"""One partition of topic ``reactions``: into Redis as they come, and at once into the users' states.

The offset is kept in Redis, in the same script as the reactions (:mod:`services.joiner.ledger`); nothing is committed
to Kafka. Everything before that script may be done again after a crash: a late reaction may then stand in
``late-reactions`` twice, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.deadletters import Unreadable, dead_letter
from banditmesh.runtime.kafka.producer import Producer, Record
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.stream import Consumed, Offsets, StartOver
from banditmesh.runtime.user_record import ANY_LOG
from services.joiner.arrivals import Arrival, New, advance, judge
from services.joiner.events import CONSUMER, Tick, read_reaction
from services.joiner.join import SCHEMA_VERSION
from services.joiner.ledger import ImpressionClosed, Ledger, Progress, ProgressMoved
from services.joiner.metrics import JoinerMetrics
from services.joiner.users import Users

log = get_logger(__name__)

TICK = events_pb2.Reaction(schema_version=SCHEMA_VERSION, tick=events_pb2.Tick()).SerializeToString(deterministic=True)


class ReactionsProcessor:
    """See :class:`banditmesh.runtime.stream.Processor`. Nobody has to be fenced: Redis takes progress only from who
    knows the last one."""

    def __init__(
        self,
        partition: int,
        offsets: Offsets,
        *,
        ledger: Ledger,
        users: Users,
        producer: Producer,
        topics: Topics,
        horizon_ms: int,
        clock: Clock,
        metrics: JoinerMetrics,
        owned: MutableMapping[int, ReactionsProcessor],
        last_end: Callable[[int], int | None],
    ) -> None:
        """``horizon_ms``: how far back to begin when Redis knows nothing: the join window and the slack."""
        self.partition = partition
        self.progress: Progress | None = None
        self._offsets = offsets
        self._ledger = ledger
        self._users = users
        self._producer = producer
        self._topics = topics
        self._horizon_ms = horizon_ms
        self._clock = clock
        self._metrics = metrics
        self._owned = owned
        self._last_end = last_end
        owned[partition] = self

    async def start_offset(self) -> int:
        """Where Redis says; when it knows nothing, at ``now - horizon``: older reactions have expired, and so have
        their impressions."""
        self.progress = await self._ledger.progress()
        if self.progress is not None:
            return self.progress.offset
        since_ms = int(self._clock.now_s() * 1000) - self._horizon_ms
        start = await self._offsets.at(self.partition, since_ms)
        if start is None:
            start = await self._offsets.beginning(self.partition)
        self._metrics.progress_lost.inc()
        log.warning(
            "no progress in Redis: first start, or it was lost",
            partition=self.partition,
            offset=start,
            since_ms=since_ms,
        )
        return start

    async def process(self, records: Sequence[Consumed]) -> None:
        """Store a batch and what follows from it."""
        arrivals = await self._read(records)
        watermark_ms = max(record.time_ms for record in records)
        if self.progress is not None:
            watermark_ms = max(watermark_ms, self.progress.watermark_ms)
        following = Progress(records[-1].offset + 1, watermark_ms)
        try:
            while not await self._store(arrivals, following):
                pass  # each turn means that somebody else got on in between
        except ProgressMoved as error:
            raise StartOver(str(error)) from error
        self.progress = following
        self._observe()

    async def tick(self) -> None:
        """Nothing came: bring the partition's broker time forward by a record that says nothing."""
        await self._producer.send(self._topics.reactions, b"", TICK, self.partition)
        self._observe()

    async def close(self) -> None:
        """Nothing is held."""
        if self._owned.get(self.partition) is self:
            del self._owned[self.partition]
        for gauge in (self._metrics.reactions_lag, self._metrics.watermark_age):
            with suppress(KeyError):
                gauge.remove(str(self.partition))

    async def _read(self, records: Sequence[Consumed]) -> list[Arrival]:
        arrivals: list[Arrival] = []
        letters: list[Record] = []
        for record in records:
            try:
                reaction = read_reaction(record.value)
            except Unreadable as error:
                log.warning(
                    "dead letter",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    error=str(error),
                )
                self._metrics.dead_letters.labels(reason=error.reason).inc()
                letters.append(dead_letter(record, error, consumer=CONSUMER, topic=self._topics.dead_letters))
                continue
            if not isinstance(reaction, Tick):
                arrivals.append(Arrival(record.offset, record.time_ms, reaction, record.value))
        if letters:
            await self._producer.send_many(letters)
        return arrivals

    async def _store(self, arrivals: Sequence[Arrival], following: Progress) -> bool:
        """Whether it is done; False: what was read is not true any more, look again."""
        found = await self._users.read({arrival.user_id for arrival in arrivals})
        seen = await self._ledger.look([arrival.wanted for arrival in arrivals])
        new = judge(arrivals, seen)
        late = [each for each in new if each.late]
        if late:
            await self._producer.send_many([self._late(each) for each in late])
        changed = advance({user: each.record for user, each in found.items()}, new, ANY_LOG)
        conflicts = await self._users.replace(found, changed)
        if conflicts:
            self._metrics.state_conflicts.inc(conflicts)
            return False
        try:
            await self._ledger.store(self.progress, following, [each.to_store() for each in new])
        except ImpressionClosed:
            return False
        self._metrics.reactions.inc(len(new))
        self._metrics.late.inc(len(late))
        self._metrics.duplicates.labels(kind="reaction").inc(len(arrivals) - len(new))
        return True

    def _late(self, new: New) -> Record:
        return Record(self._topics.late_reactions, new.arrival.user_id.encode(), new.arrival.value, self.partition)

    def _observe(self) -> None:
        if self.progress is None:
            return
        partition = str(self.partition)
        self._metrics.watermark_age.labels(partition=partition).set(
            self._clock.now_s() - self.progress.watermark_ms / 1000
        )
        end = self._last_end(self.partition)
        if end is not None:
            self._metrics.reactions_lag.labels(partition=partition).set(max(end - self.progress.offset, 0))
