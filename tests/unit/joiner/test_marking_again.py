"""Marks that Redis has lost are written again, while reactions come in."""

from __future__ import annotations

from collections.abc import Sequence

from banditmesh.contracts.events.v1 import events_pb2
from services.joiner.checkpoint import Checkpoint, Progress
from services.joiner.ledger import Late, Mark, StoredReaction
from tests.unit.joiner.told import (
    CLICK,
    DECISION,
    LOG,
    TOPICS,
    WINDOW_MS,
    FakeCheckpoint,
    FakeLog,
    FakeOffsets,
    T,
    consumed,
    impressions,
)

LATE = StoredReaction(bytes(16), "click", 2, T + WINDOW_MS + 1, False, CLICK)


class FirstReactionsComeIn:
    """A Redis whose first reactions are stored, with how far they are read, just as somebody looks for them."""

    def __init__(self) -> None:
        self.known: Progress | None = None
        self.late: list[Late] = []

    async def progress(self) -> Progress | None:
        return self.known

    async def reactions(self, impression_ids: Sequence[bytes]) -> list[Sequence[StoredReaction]]:
        self.known = Progress(3, LATE.time_ms, LOG)
        return [[LATE] for _ in impression_ids]

    async def mark_again(
        self,
        marks: Checkpoint,
        following: Progress,
        closed: Sequence[tuple[bytes, Mark, int]],
        late: Sequence[Late] = (),
    ) -> bool:
        self.late += late
        return True


async def test_a_late_reaction_that_comes_in_meanwhile_goes_out() -> None:
    ledger = FirstReactionsComeIn()
    processor = impressions(ledger, FakeLog(), FakeCheckpoint(), FakeOffsets(was_committed=1))  # type: ignore[arg-type]
    processor._marked_until = 1
    impression = events_pb2.Impression(schema_version=1, decision=DECISION).SerializeToString()
    await processor.process([consumed(0, impression, topic=TOPICS.impressions)])
    assert ledger.late == [Late(LOG, LATE.offset, LATE.time_ms, LATE.value)]
