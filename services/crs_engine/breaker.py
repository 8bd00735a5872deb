"""A circuit breaker: when Redis is away, requests do not each wait for its timeout.

A stall is not an outage. A batch that meets one gets its fallback, the others go on; only when most reads of a whole
window have failed is Redis taken to be away. Then nobody waits for it any more: a single small read beside the traffic
finds out when it is back, also where there is no traffic, so that the first request after a pause is answered as any.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.metrics import watch
from banditmesh.runtime.outages import outages
from services.crs_engine.metrics import EngineMetrics

WINDOW_S: Final = 1.0
FEWEST_FAILURES: Final = 5
FAILED_SHARE: Final = 0.5
PROBE_EVERY_S: Final = 0.25
WORK: Final = "selections"
"""What waits for Redis here, in the log."""

Probe = Callable[[], Awaitable[object]]


class Breaker:
    """Closed: everything passes. Open: nothing does, and ``probe`` is tried again and again, one at a time, until it
    succeeds."""

    def __init__(self, clock: Clock, probe: Probe, metrics: EngineMetrics) -> None:
        """``probe``: a single read; raises Unavailable while Redis is away."""
        self._clock = clock
        self._probe = probe
        self._outcomes: deque[tuple[float, bool]] = deque()
        """When a read ended, and whether it failed; of the last :data:`WINDOW_S`."""
        self._failures = 0
        self._open = False
        self._probing: asyncio.Task[None] | None = None
        watch(metrics.breaker_open, self, lambda breaker: float(breaker._open))

    def allows(self) -> bool:
        """Whether to read now."""
        return not self._open

    def succeeded(self) -> None:
        """A read went well."""
        self._note(False)

    def failed(self) -> bool:
        """A read failed; returns whether this opened the breaker. To be called inside the event loop."""
        self._note(True)
        if self._open or self._failures < FEWEST_FAILURES or self._failures < FAILED_SHARE * len(self._outcomes):
            return False
        self._open = True
        self._probing = asyncio.create_task(self._probe_until_it_answers(), name="Redis probe")
        return True

    async def stop(self) -> None:
        """End a probe that is under way."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _probe_until_it_answers(self) -> None:
        while self._open:
            await self._clock.sleep(PROBE_EVERY_S)
            try:
                await self._probe()
            except Exception as error:  # whatever it is: without a probe selections would stay on the fallback for good
                outages.failed(WORK, error)
            else:
                outages.well(WORK)
                self._open, self._failures = False, 0
                self._outcomes.clear()

    def _note(self, failed: bool) -> None:
        now_s = self._clock.monotonic_s()
        self._outcomes.append((now_s, failed))
        self._failures += failed
        while self._outcomes[0][0] <= now_s - WINDOW_S:
            self._failures -= self._outcomes.popleft()[1]
