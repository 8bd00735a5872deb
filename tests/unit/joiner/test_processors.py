"""What the processors of one partition do when others get in between, with a Redis and a Kafka that say what they are
told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.deadletters import OUTGROWN
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.sizes import LEAST_BYTES, MessageSizes
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.stream import Consumed, NotYet, StartOver
from banditmesh.runtime.user_record import UserRecord
from services.joiner.checkpoint import Checkpoint, Progress, ProgressMoved
from services.joiner.impressions import CLOSED_AT_ONCE, ImpressionsProcessor
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


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def checkpoint() -> FakeCheckpoint:
    return FakeCheckpoint()


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


LATE = Seen(Mark(3, T), None)


async def test_a_late_reaction_is_stored_as_one_though_an_impression_is_closed_in_between(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger.seen, ledger.closed_meanwhile = LATE, 2
    await reactions(ledger, log, checkpoint).process([consumed(5, CLICK, time_ms=T + WINDOW_MS + 1)])
    assert [each.was_late for each in ledger.stored] == [True]
    assert log.records == []


async def test_nothing_is_stored_once_redis_has_lost_what_was_read(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    checkpoint.lost = True
    with pytest.raises(StartOver):
        await reactions(ledger, log, checkpoint).process([consumed(5, CLICK)])
    assert ledger.stored == []


@pytest.mark.parametrize(("rollout_until_s", "reasons"), [(0.0, ["unknown_kind"]), (CLOCK.now_s() + 60, [])])
async def test_a_reaction_of_a_kind_that_a_newer_release_knows_is_kept_and_passed_over(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint, rollout_until_s: float, reasons: list[str]
) -> None:
    processor = reactions(ledger, log, checkpoint, rollout_until_s=rollout_until_s)
    await processor.process([consumed(5, UNKNOWN), consumed(6, CLICK)])
    assert [(each.key[:1], each.value) for each in ledger.stored] == [("?", UNKNOWN), ("c", CLICK)]
    assert log.reasons == reasons
    assert processor.progress is not None
    assert processor.progress.offset == 7


async def test_a_record_without_any_kind_is_a_dead_letter_whatever_is_rolled_out(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    processor = reactions(ledger, log, checkpoint, rollout_until_s=CLOCK.now_s() + 60)
    nothing = events_pb2.Reaction(schema_version=2, decision=DECISION).SerializeToString()
    await processor.process([consumed(5, nothing)])
    assert log.reasons == ["no_kind"]


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


@pytest.mark.parametrize(
    ("committed", "marks", "begins"),
    [
        (None, None, 20),  # the first start
        (60, 60, 60),
        (60, 50, 50),  # Redis has lost marks
        (60, 70, 60),  # closed, and the owner died before it had written the examples
        (20, 70, 20),  # the very first ones
        (None, 60, 60),  # Kafka has forgotten the group
        (None, 10, 20),  # and retention has passed what was read
    ],
)
async def test_impressions_go_on_where_kafka_and_redis_say(
    ledger: FakeLedger,
    log: FakeLog,
    checkpoint: FakeCheckpoint,
    committed: int | None,
    marks: int | None,
    begins: int,
) -> None:
    checkpoint.found = None if marks is None else Progress(marks, T, LOG)
    processor = impressions(ledger, log, checkpoint, FakeOffsets(first=20, was_committed=committed))
    assert await processor.start_offset() == begins
    # Marks without anything committed must mean that Kafka has forgotten it.
    begun = {(TOPICS.impressions, 0): (20, "")} if committed is None and marks != 60 else {}
    assert log.offsets == begun


async def test_what_was_committed_for_another_log_means_nothing(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    checkpoint.found = Progress(60, T, LOG + 1)
    for committed in (None, 60):
        processor = impressions(ledger, log, checkpoint, FakeOffsets(first=20, was_committed=committed))
        assert await processor.start_offset() == 20
        assert log.offsets == {(TOPICS.impressions, 0): (20, "")}


async def opened(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint, late_written: tuple[int, str] | None = None
) -> ImpressionsProcessor:
    """A processor that knows up to where late reactions are written."""
    processor = impressions(ledger, log, checkpoint, FakeOffsets(late_written=late_written))
    await processor.start_offset()
    log.offsets.clear()
    log.transactions.clear()
    return processor


async def test_late_reactions_that_wait_are_written_with_how_far_they_are_and_forgotten(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger.late = [Late(LOG, 3, T, CLICK), Late(LOG, 5, T, UNKNOWN)]
    processor = await opened(ledger, log, checkpoint)
    for _ in range(2):
        await processor.tick()
    assert [(each.key, each.value) for each in log.records if each.topic == TOPICS.late_reactions] == [
        (b"ann", CLICK),
        (b"ann", UNKNOWN),
    ]
    assert log.offsets == {(TOPICS.reactions, 0): (9, str(LOG))}
    assert ledger.late == []


async def test_late_reactions_wait_on_while_kafka_takes_nothing(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger.late, log.away = [Late(LOG, 3, T, CLICK)], True
    with pytest.raises(Unavailable):
        await (await opened(ledger, log, checkpoint)).tick()
    assert ledger.late == [Late(LOG, 3, T, CLICK)]


@pytest.mark.parametrize(
    ("late_written", "written"), [((5, str(LOG)), [UNKNOWN]), ((99, str(LOG - 1)), [CLICK, UNKNOWN])]
)
async def test_late_reactions_that_redis_makes_wait_again_are_not_written_again(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint, late_written: tuple[int, str], written: list[bytes]
) -> None:
    ledger.late = [Late(LOG, 3, T, CLICK), Late(LOG, 5, T, UNKNOWN)]
    await (await opened(ledger, log, checkpoint, late_written)).tick()
    assert log.to(TOPICS.late_reactions) == written
    assert ledger.late == []


async def test_what_was_found_to_be_late_when_its_impression_was_closed_moves_the_same_position(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger.watermark_ms = T + 3_600_000
    ledger.reactions = [StoredReaction(bytes(16), "click", 2, T + WINDOW_MS + 1, False, CLICK)]
    impression = events_pb2.Impression(schema_version=1, decision=DECISION).SerializeToString()
    await (await opened(ledger, log, checkpoint)).process([consumed(0, impression, topic=TOPICS.impressions)])
    assert log.to(TOPICS.late_reactions) == [CLICK]
    assert log.offsets == {(TOPICS.impressions, 0): (1, ""), (TOPICS.reactions, 0): (9, str(LOG))}


async def test_what_its_topic_does_not_take_becomes_a_dead_letter_of_what_it_came_from(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    for topic in (TOPICS.examples, TOPICS.late_reactions):
        log.sizes.refused(topic, LEAST_BYTES, 1)
    large = events_pb2.Decision()
    large.CopyFrom(DECISION)
    large.content_id = "f" * LEAST_BYTES
    click = events_pb2.Reaction(schema_version=1, decision=large, click=events_pb2.Click()).SerializeToString()
    ledger.watermark_ms, ledger.late = T + 3_600_000, [Late(LOG, 3, T, click)]
    ledger.reactions = [StoredReaction(bytes(16), "click", 2, T + WINDOW_MS + 1, False, click)]
    impression = events_pb2.Impression(schema_version=1, decision=large).SerializeToString()
    await (await opened(ledger, log, checkpoint)).process([consumed(0, impression, topic=TOPICS.impressions)])
    letters = [events_pb2.DeadLetter.FromString(each) for each in log.to(TOPICS.dead_letters)]
    assert sorted((each.topic, each.offset, each.value) for each in letters) == [
        (TOPICS.impressions, 0, impression),
        (TOPICS.reactions, 2, click),
        (TOPICS.reactions, 3, click),
    ]
    assert set(log.reasons) == {OUTGROWN}
    assert {record.topic for record in log.records} == {TOPICS.dead_letters}
    assert log.offsets == {(TOPICS.impressions, 0): (1, ""), (TOPICS.reactions, 0): (9, str(LOG))}


def shown(n: int) -> list[Consumed]:
    """Impressions, one a millisecond."""
    value = events_pb2.Impression(schema_version=1, decision=DECISION).SerializeToString()
    return [consumed(offset, value, time_ms=T + offset, topic=TOPICS.impressions) for offset in range(n)]


async def test_what_several_scripts_have_closed_is_one_transaction(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger.watermark_ms = T + 3_600_000
    await (await opened(ledger, log, checkpoint)).process(shown(2 * CLOSED_AT_ONCE + 1))
    assert len(log.to(TOPICS.examples)) == 2 * CLOSED_AT_ONCE + 1
    assert log.transactions == [{(TOPICS.impressions, 0): (2 * CLOSED_AT_ONCE + 1, "")}]


async def test_what_is_not_due_is_offered_again(ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint) -> None:
    ledger.watermark_ms = T + WINDOW_MS + 3
    with pytest.raises(NotYet) as not_yet:
        await (await opened(ledger, log, checkpoint)).process(shown(9))
    assert not_yet.value.taken == len(log.to(TOPICS.examples)) == 3


class Filling(FakeLedger):
    """As soon as one script has closed something, more late reactions wait than fit."""

    async def close(self, *arguments: Any) -> Closed:
        found = await super().close(*arguments)
        self.late = [Late(LOG, 1, T, CLICK)] * LATE_AT_ONCE
        return found


async def test_a_script_that_closes_nothing_does_not_take_back_how_far_late_reactions_are_written(
    log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger = Filling(watermark_ms=T + 3_600_000)
    ledger.reactions = [StoredReaction(bytes(16), "click", 8, T + 1_000_000, False, CLICK)]
    with pytest.raises(NotYet):
        await (await opened(ledger, log, checkpoint)).process(shown(CLOSED_AT_ONCE + 1))
    assert log.offsets == {(TOPICS.impressions, 0): (CLOSED_AT_ONCE, ""), (TOPICS.reactions, 0): (9, str(LOG))}


async def test_more_late_reactions_than_fit_are_written_one_part_after_the_other(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger.late = [Late(LOG, offset, T, CLICK) for offset in range(LATE_AT_ONCE + 1)]
    ledger.read = LATE_AT_ONCE + 50
    processor = await opened(ledger, log, checkpoint)
    await processor.tick()
    assert log.offsets[TOPICS.reactions, 0] == (LATE_AT_ONCE, str(LOG))
    await processor.tick()
    assert log.offsets[TOPICS.reactions, 0] == (LATE_AT_ONCE + 50, str(LOG))
    assert len(log.to(TOPICS.late_reactions)) == LATE_AT_ONCE + 1


def orphan(value: bytes = CLICK) -> dict[bytes, list[StoredReaction]]:
    """A reaction to an impression that has not been seen."""
    return {bytes(16): [StoredReaction(bytes(16), "click", 2, T, False, value)]}


async def test_a_reaction_whose_impression_did_not_come_in_time_is_given_up_on(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger.orphans, ledger.watermark_ms = orphan(), T + WINDOW_MS + MAX_AGE_MS + 1
    await impressions(ledger, log, checkpoint, FakeOffsets(last=0)).tick()
    assert log.reasons == ["impression_never_tracked"]
    assert ledger.forgotten == [bytes(16)]


async def test_no_reaction_is_given_up_on_while_impressions_wait_that_nobody_could_read_yet(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger.orphans, ledger.watermark_ms = orphan(), T + 3_600_000
    await impressions(ledger, log, checkpoint, FakeOffsets(last=1)).tick()
    assert (log.reasons, ledger.forgotten) == ([], [])


async def test_no_reaction_is_given_up_on_when_redis_may_have_lost_the_mark_of_its_impression(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint
) -> None:
    ledger.orphans, ledger.watermark_ms = orphan(), T + 3_600_000
    checkpoint.lost = True
    with pytest.raises(StartOver):
        await impressions(ledger, log, checkpoint, FakeOffsets(last=0)).tick()
    assert (log.reasons, ledger.forgotten) == ([], [])


@pytest.mark.parametrize("value", [UNKNOWN, b"\xff"])
async def test_what_another_release_has_stored_stops_no_partition(
    ledger: FakeLedger, log: FakeLog, checkpoint: FakeCheckpoint, value: bytes
) -> None:
    ledger.orphans, ledger.watermark_ms = orphan(value), T + 3_600_000
    await impressions(ledger, log, checkpoint, FakeOffsets(last=0)).tick()
    assert [events_pb2.DeadLetter.FromString(each).value for each in log.to(TOPICS.dead_letters)] == [value]
