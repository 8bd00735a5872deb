"""How late reactions that wait in Redis get into their topic, and how far they are written."""

from __future__ import annotations

from typing import Any

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.stream import NotYet
from services.joiner.impressions import CLOSED_AT_ONCE
from services.joiner.ledger import (
    LATE_AT_ONCE,
    Closed,
    Late,
    StoredReaction,
)
from tests.unit.joiner.told import (
    CLICK,
    DECISION,
    LOG,
    TOPICS,
    UNKNOWN,
    WINDOW_MS,
    FakeCheckpoint,
    FakeLedger,
    FakeLog,
    T,
    consumed,
    opened,
    shown,
)


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
