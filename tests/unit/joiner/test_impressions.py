"""What the processor of one partition of impressions does when others get in between."""

from __future__ import annotations

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.deadletters import OUTGROWN
from banditmesh.runtime.kafka.sizes import LEAST_BYTES
from banditmesh.runtime.stream import NotYet, StartOver
from services.joiner.checkpoint import Progress
from services.joiner.impressions import CLOSED_AT_ONCE
from services.joiner.ledger import (
    Late,
    StoredReaction,
)
from tests.unit.joiner.told import (
    CLICK,
    DECISION,
    LOG,
    MAX_AGE_MS,
    TOPICS,
    UNKNOWN,
    WINDOW_MS,
    FakeCheckpoint,
    FakeLedger,
    FakeLog,
    FakeOffsets,
    T,
    consumed,
    impressions,
    opened,
    shown,
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
