"""Who may come in: how many calls are worked on at once, and what those are told who would be one too many.

A call that is refused costs a Python server about as much as an empty one that is answered, half of a selection. So
those who are refused must not come back at once: the delay that they are told grows until they take at most
:data:`REFUSED_SHARE` of what is served.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from banditmesh.runtime.errors import ResourceExhausted

REFUSED_SHARE: Final = 0.1
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0
_PERIOD_S: Final = 0.2
_SHRINK: Final = 0.8
"""The delay grows at once, and becomes shorter by this factor in a period at most: callers that all come back together
would be refused together."""


class RetryDelay:
    """How long refused callers should wait, by how many there are of them. ``now_s``: seconds of steady time."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._delay_s = FIRST_DELAY_S
        self._began_s = now_s()
        self._refused = 0
        self._served = 0

    def served(self, count: int = 1) -> None:
        """So much was answered."""
        self._served += count

    def refused(self, count: int = 1) -> float:
        """So much is refused; returns the seconds after which its caller may try again. With jitter: who was refused
        together does not come back together."""
        now_s = self._now_s()
        if now_s - self._began_s >= _PERIOD_S:
            self._adjust(now_s)
        self._refused += count
        return self._delay_s * random.uniform(0.5, 1.5)

    def _adjust(self, now_s: float) -> None:
        share = self._refused / max(1, self._served)
        # After a pause nothing is known: as at the beginning.
        quiet = now_s - self._began_s > LONGEST_DELAY_S
        wanted_s = FIRST_DELAY_S if quiet else self._delay_s * share / REFUSED_SHARE
        self._delay_s = min(max(wanted_s, FIRST_DELAY_S, self._delay_s * _SHRINK), LONGEST_DELAY_S)
        self._began_s, self._refused, self._served = now_s, 0, 0


class Admission:
    """Counts the calls in flight."""

    def __init__(self, limit: int, delay: RetryDelay | None = None) -> None:
        """``limit``: calls that are worked on at once."""
        self.limit = limit
        self.in_flight = 0
        self.delay = delay if delay is not None else RetryDelay()

    @property
    def full(self) -> bool:
        """Whether the next call is one too many."""
        return self.in_flight >= self.limit

    def refusal(self) -> ResourceExhausted:
        """What a call is told that is one too many."""
        return ResourceExhausted(f"the server works on {self.limit} calls already", retry_after_s=self.delay.refused())
