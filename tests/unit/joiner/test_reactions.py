"""What the processor of one partition of reactions does when others get in between."""

from __future__ import annotations

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.stream import StartOver
from services.joiner.ledger import (
    Mark,
    Seen,
)
from tests.unit.joiner.told import (
    CLICK,
    CLOCK,
    DECISION,
    UNKNOWN,
    WINDOW_MS,
    FakeCheckpoint,
    FakeLedger,
    FakeLog,
    T,
    consumed,
    reactions,
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
