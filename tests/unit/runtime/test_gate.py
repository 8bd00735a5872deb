"""The gate before a service's topics: opens when they are right, and looks after them from then on."""

from __future__ import annotations

import asyncio

from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import MeshError, Unavailable
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
    gate = TopicsGate(topics.ensure, clock)
    running = asyncio.create_task(gate.run())
    await clock.advance(1.0)
    await gate.probe()
    for _ in range(3):
        await clock.advance(LOOK_AGAIN_S)
    assert topics.asked == [False, False, True, True, True]
    await gate.probe()
    running.cancel()
