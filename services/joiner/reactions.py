"""One partition of topic ``reactions``: into Redis as they come, and at once into the users' records.

The checkpoint moves in the same script as the reactions (:mod:`services.joiner.checkpoint`). Everything before that
script may be done again after a crash, and changes nothing then. Late reactions are written by whoever closes
impressions (:mod:`services.joiner.late`).
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
from services.joiner.checkpoint import Checkpoint, Progress, ProgressMoved
from services.joiner.events import CONSUMER, ReadReaction, read_reaction
from services.joiner.incoming import advance, judge
from services.joiner.join import SCHEMA_VERSION
from services.joiner.ledger import ImpressionClosed, Ledger
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
        checkpoint: Checkpoint,
        *,
        ledger: Ledger,
        users: Users,
        producer: Producer,
        topics: Topics,
        window_ms: int,
        slack_ms: int,
        rollout_until_s: float,
        clock: Clock,
        metrics: JoinerMetrics,
        owned: MutableMapping[int, ReactionsProcessor],
        last_end: Callable[[int], int | None],
        remembers: int = 0,
    ) -> None:
        """``rollout_until_s``: until when a reaction of an unknown kind is taken for a newer release's;
        ``remembers``: see `advance`."""
        self._remembers = remembers
        self.partition = partition
        self._offsets = offsets
        self._checkpoint = checkpoint
        self._ledger = ledger
        self._users = users
        self._producer = producer
        self._topics = topics
        self._window_ms = window_ms
        self._slack_ms = slack_ms
        self._rollout_until_s = rollout_until_s
        self._clock = clock
        self._metrics = metrics
        self._owned = owned
        self._last_end = last_end
        owned[partition] = self

    @property
    def progress(self) -> Progress | None:
        """How far this partition has been read."""
        return self._checkpoint.progress

    async def start_offset(self) -> int:
        """Where Redis says; when it knows nothing, at ``now - window - slack``: older reactions have expired, and so
        have their impressions. Where an impression that is only now closed has missed its reactions, before them."""
        progress = await self._checkpoint.read()
        if progress is not None:
            return progress.offset
        self._metrics.progress_lost.labels(stream="reactions").inc()
        since_ms = self._now_ms - self._horizon_ms
        if self._checkpoint.lost_since_ms is not None:
            since_ms = min(since_ms, self._checkpoint.lost_since_ms)
        return await start_anew(self._checkpoint, self._offsets, self.partition, since_ms)

    async def process(self, records: Sequence[Consumed]) -> None:
        """Store a batch and what follows from it."""
        reactions = await self._read(records)
        following = self._checkpoint.following(records[-1].offset + 1, max(record.time_ms for record in records))
        try:
            while not await self._store(reactions, following):
                pass  # each turn means that an impression was closed in between
        except ProgressMoved as error:
            raise StartOver(str(error)) from error
        self._offsets.report(self.partition, following.offset)
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

    async def _read(self, records: Sequence[Consumed]) -> list[ReadReaction]:
        reactions: list[ReadReaction] = []
        letters: list[Record] = []
        for record in records:
            try:
                reaction = read_reaction(record.offset, record.time_ms, record.value)
                if reaction is None:
                    continue
                reactions.append(reaction)
                if reaction.kind is None:
                    self._passed_over(record)
            except Unreadable as error:
                log.warning(
                    "dead letter",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    error=str(error),
                )
                self._metrics.dead_letters.labels(reason=error.reason).inc()
                room = self._producer.sizes.room(self._topics.dead_letters)
                letters.append(
                    dead_letter(record, error, consumer=CONSUMER, topic=self._topics.dead_letters, most_bytes=room)
                )
        if letters:
            await self._producer.send_many(letters)
        return reactions

    def _passed_over(self, record: Consumed) -> None:
        """A reaction of a kind that this release does not know. It is stored, so that a release that knows it can join
        it; unless a rollout is declared, somebody shall also hear of it."""
        self._metrics.unknown_kinds.inc()
        if self._clock.now_s() >= self._rollout_until_s:
            raise Unreadable(
                "unknown_kind",
                "a reaction of a kind that this release does not know, and no rollout is declared (join.rollout_until)",
            )

    async def _store(self, reactions: Sequence[ReadReaction], following: Progress) -> bool:
        """Whether it is done; False: what was looked up is not true any more, look again."""
        seen = await self._ledger.look([(each.decision.impression_id, each.key) for each in reactions])
        new = judge(reactions, seen, self._window_ms)
        first = [read for read, _ in new]
        conflicts = await self._users.change(
            {each.decision.user_id for each in first},
            lambda records: advance(records, first, self._checkpoint.log, self._remembers),
            self._checkpoint.verify,
        )
        self._metrics.record_conflicts.inc(conflicts)
        try:
            await self._ledger.store(self._checkpoint, following, [stored for _, stored in new])
        except ImpressionClosed:
            return False
        self._metrics.reactions.inc(len(new))
        self._metrics.duplicates.labels(kind="reaction").inc(len(reactions) - len(new))
        return True

    @property
    def _horizon_ms(self) -> int:
        return self._window_ms + self._slack_ms

    @property
    def _now_ms(self) -> int:
        return int(self._clock.now_s() * 1000)

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


async def start_anew(checkpoint: Checkpoint, offsets: Offsets, partition: int, since_ms: int) -> int:
    """The offset to begin with where Redis knows of no progress: the first one since a broker time, or the log's
    beginning."""
    start = await offsets.at(partition, since_ms)
    if start is None:
        start = await offsets.beginning(partition)
    log.warning(
        "no progress in Redis: first start, another log, or it was lost",
        checkpoint=checkpoint.key,
        another_log=checkpoint.another_log,
        offset=start,
        since_ms=since_ms,
    )
    return start
