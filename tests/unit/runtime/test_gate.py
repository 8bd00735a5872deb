"""The gate before a service's topics: opens when they are right, and looks after them from then on."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import ConfigurationError, MeshError, Unavailable
from banditmesh.runtime.kafka.gate import LOOK_AGAIN_S, TopicsGate


class Topics:
    """Notes how it is asked, and fails as told."""

    def __init__(self, *failures: MeshError | None) -> None:
        self.asked: list[bool] = []
        self._failures = list(failures)

    async def ensure(self, again: bool) -> None:
        self.asked.append(again)
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure


async def test_topics_that_were_there_are_looked_for_again_also_after_an_outage() -> None:
    clock, topics = ManualClock(), Topics(Unavailable("away"), None, Unavailable("away"), None)
    gate = TopicsGate(topics.ensure, clock, "k:9092")
    running = asyncio.create_task(gate.run())
    await clock.advance(1.0)
    await gate.probe()
    for _ in range(3):
        await clock.advance(LOOK_AGAIN_S)
    assert topics.asked == [False, False, True, True, True]
    await gate.probe()
    running.cancel()


async def test_a_topic_that_somebody_sets_wrong_is_named_until_it_is_right_again() -> None:
    wrong = ConfigurationError("topics that exist are not what the mesh needs:", ("topic 'examples': too small",))
    clock, topics = ManualClock(), Topics(None, wrong, Unavailable("away"), None)
    gate = TopicsGate(topics.ensure, clock, "k:9092")
    running = asyncio.create_task(gate.run())
    await clock.advance(0.0)
    await gate.probe()
    for _ in range(2):  # whether it is right now is not known while Kafka is away
        await clock.advance(LOOK_AGAIN_S)
        with pytest.raises(Unavailable, match="topic 'examples': too small"):
            await gate.probe()
    await clock.advance(LOOK_AGAIN_S)
    await gate.probe()
    running.cancel()


async def test_a_kafka_that_hangs_at_the_start_is_named_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("banditmesh.runtime.kafka.gate.FIRST_LOOK_S", 0.01)

    async def hang(again: bool) -> None:
        await asyncio.Event().wait()

    gate = TopicsGate(hang, ManualClock(), "k:9092")
    with capture_logs() as logs:
        await gate.first_look()
    (line,) = logs
    assert (line["event"], line["dependency"]) == ("dependency down", "kafka")
    assert line["reason"].startswith("Kafka at k:9092 has not answered")
