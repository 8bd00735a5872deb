"""A Redis and a Kafka that say what they are told, and the processors of one partition over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from prometheus_client import CollectorRegistry

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.sizes import MessageSizes
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.stream import Consumed
from banditmesh.runtime.user_record import UserRecord
from services.joiner.checkpoint import Checkpoint, Progress, ProgressMoved
from services.joiner.impressions import ImpressionsProcessor
from services.joiner.ledger import (
    LATE_AT_ONCE,
    Closed,
    Closing,
    ImpressionClosed,
    Late,
    LateWritten,
    Mark,
    Seen,
    StoredReaction,
)
from services.joiner.metrics import JoinerMetrics
from services.joiner.reactions import ReactionsProcessor

T = 1_700_000_000_000
NOTHING = Seen(None, None)
LOG = 7
WINDOW_MS = 1000
MAX_AGE_MS = 5000
TOPICS = Topics.named()
OF_TOMORROW = b"\xfa\x3e\x05later"  # field 1007: a kind that a later release knows
MESH = parse_mesh(
    """
    services: {films: {logics: [similar]}}
    placements: {home: {sources: [films/similar]}}
    join: {window: 1s, tick_every: 1s}
    token: {max_age: 5s}
    """
)
DECISION = events_pb2.Decision(
    impression_id=bytes(16), user_id="ann", placement="home", service="films", content_id="film-1"
)
CLICK = events_pb2.Reaction(schema_version=1, decision=DECISION, click=events_pb2.Click()).SerializeToString()
UNKNOWN = events_pb2.Reaction(schema_version=2, decision=DECISION).SerializeToString() + OF_TOMORROW


def consumed(offset: int, value: bytes, *, time_ms: int = T, topic: str = TOPICS.reactions) -> Consumed:
    return Consumed(topic, 0, offset, time_ms, b"ann", value)


@dataclass
class FakeOffsets:
    """Where the partition ends."""

    last: int = 0
    first: int = 0
    was_committed: int | None = None
    late_written: tuple[int, str] | None = None
    reported: list[int] = field(default_factory=list)

    async def committed(self, partition: int) -> int | None:
        return self.was_committed

    async def noted(self, topic: str, partition: int) -> tuple[int, str] | None:
        return self.late_written if (topic, partition) == (TOPICS.reactions, 0) else None

    async def beginning(self, partition: int) -> int:
        return self.first

    async def at(self, partition: int, time_ms: int) -> int | None:
        return None

    async def log(self, partition: int) -> int:
        return LOG

    async def end(self, partition: int) -> int:
        return self.last

    def report(self, partition: int, offset: int) -> None:
        self.reported.append(offset)


class FakeCheckpoint(Checkpoint):
    """A checkpoint that Redis has, unless it was told that it lost it."""

    def __init__(self) -> None:
        super().__init__(cast(Any, None), "checkpoint", LOG)
        self.lost = False
        self.found: Progress | None = None

    async def read(self) -> Progress | None:
        self.another_log = self.found is not None and self.found.log != LOG
        return None if self.another_log else self.found

    async def verify(self) -> None:
        if self.lost:
            raise ProgressMoved("lost")


@dataclass
class FakeLedger:
    """What Redis says."""

    seen: Seen = NOTHING
    closed_meanwhile: int = 0
    """How many stores are refused because an impression was closed."""
    watermark_ms: int = T
    read: int = 9
    orphans: Mapping[bytes, Sequence[StoredReaction]] = field(default_factory=dict)
    late: list[Late] = field(default_factory=list)
    reactions: Sequence[StoredReaction] = ()
    """To the impression that is closed."""
    stored: list[StoredReaction] = field(default_factory=list)
    forgotten: list[bytes] = field(default_factory=list)

    async def look(self, wanted: Sequence[tuple[bytes, str]]) -> list[Seen]:
        return [self.seen] * len(wanted)

    async def store(self, checkpoint: Checkpoint, following: Progress, reactions: Sequence[StoredReaction]) -> None:
        if self.closed_meanwhile:
            self.closed_meanwhile -= 1
            raise ImpressionClosed
        self.stored += reactions
        checkpoint.moved(following)

    async def close(
        self, marks: Checkpoint, impressions: Sequence[tuple[bytes, Mark]], window_ms: int, written: LateWritten
    ) -> Closed:
        await marks.verify()
        closings = [Closing(None, self.reactions) for _ in impressions] if len(self.late) < LATE_AT_ONCE else []
        return Closed(await self.progress(), closings, list(self.late[:LATE_AT_ONCE]))

    async def forget_late(self, late: Sequence[Late]) -> None:
        self.late = [each for each in self.late if each not in late]

    async def progress(self) -> Progress | None:
        return Progress(self.read, self.watermark_ms, LOG)

    async def unmatched(self, before_ms: int, limit: int) -> Mapping[bytes, Sequence[StoredReaction]]:
        return {key: each for key, each in self.orphans.items() if each[0].time_ms < before_ms}

    async def forget_unmatched(self, impression_ids: Sequence[bytes]) -> None:
        self.forgotten += impression_ids


class FakeUsers:
    """Users' records that nobody else writes."""

    async def change(self, user_ids: Sequence[str], step: Any, verify: Any) -> int:
        await verify()
        step({user_id: UserRecord.empty() for user_id in user_ids})
        return 0


@dataclass
class FakeLog:
    """What was written."""

    records: list[Record] = field(default_factory=list)
    offsets: dict[tuple[str, int], tuple[int, str]] = field(default_factory=dict)
    transactions: list[dict[tuple[str, int], tuple[int, str]]] = field(default_factory=list)
    away: bool = False
    sizes: MessageSizes = field(default_factory=MessageSizes)

    async def send_many(self, records: Sequence[Record]) -> None:
        self.records += records

    async def write(
        self,
        records: Sequence[Record],
        *,
        group: str = "",
        offsets: Mapping[tuple[str, int], tuple[int, str]] | None = None,
    ) -> None:
        if self.away:
            raise Unavailable("away")
        self.records += records
        self.offsets |= offsets or {}
        self.transactions.append(dict(offsets or {}))

    def to(self, topic: str) -> list[bytes]:
        return [record.value for record in self.records if record.topic == topic]

    @property
    def reasons(self) -> list[str]:
        return [events_pb2.DeadLetter.FromString(value).reason for value in self.to(TOPICS.dead_letters)]


CLOCK = ManualClock()


def reactions(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint, *, rollout_until_s: float = 0.0
) -> ReactionsProcessor:
    return ReactionsProcessor(
        0,
        cast(Any, FakeOffsets()),
        checkpoint,
        ledger=cast(Any, ledger),
        users=cast(Any, FakeUsers()),
        producer=cast(Any, log),
        topics=TOPICS,
        window_ms=WINDOW_MS,
        slack_ms=60_000,
        rollout_until_s=rollout_until_s,
        clock=CLOCK,
        metrics=JoinerMetrics(CollectorRegistry()),
        owned={},
        last_end=lambda partition: None,
    )


def impressions(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint, offsets: FakeOffsets
) -> ImpressionsProcessor:
    return ImpressionsProcessor(
        0,
        cast(Any, offsets),
        cast(Any, log),
        checkpoint,
        ledger=cast(Any, ledger),
        topics=TOPICS,
        group="joiner-impressions",
        mesh=MESH,
        mark_ms=60_000,
        clock=CLOCK,
        metrics=JoinerMetrics(CollectorRegistry()),
        owned={},
        last_end=lambda partition: None,
    )


async def opened(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint, late_written: tuple[int, str] | None = None
) -> ImpressionsProcessor:
    """A processor that knows up to where late reactions are written."""
    processor = impressions(ledger, log, checkpoint, FakeOffsets(late_written=late_written))
    await processor.start_offset()
    log.offsets.clear()
    log.transactions.clear()
    return processor


def shown(n: int) -> list[Consumed]:
    """Impressions, one a millisecond."""
    value = events_pb2.Impression(schema_version=1, decision=DECISION).SerializeToString()
    return [consumed(offset, value, time_ms=T + offset, topic=TOPICS.impressions) for offset in range(n)]
