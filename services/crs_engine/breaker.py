"""A circuit breaker: when Redis is away, requests do not each wait for its timeout."""

from __future__ import annotations

from typing import Final

from banditmesh.runtime.clock import Clock

OPEN_S: Final = 0.5


class Breaker:
    """Closed: everything passes. After a failure it is open for :data:`OPEN_S`; then one caller at a time may try
    (half open)."""

    def __init__(self, clock: Clock, open_s: float = OPEN_S) -> None:
        self._clock = clock
        self._open_s = open_s
        self._failed = False
        self._retry_at_s = 0.0

    @property
    def closed(self) -> bool:
        """Whether the last try went well."""
        return not self._failed

    def allows(self) -> bool:
        """Whether to try now. Half open, the answer True goes to one caller, and to the next one :data:`OPEN_S`
        later."""
        if not self._failed:
            return True
        now_s = self._clock.monotonic_s()
        if now_s < self._retry_at_s:
            return False
        self._retry_at_s = now_s + self._open_s
        return True

    def succeeded(self) -> None:
        """A try went well."""
        self._failed = False

    def failed(self) -> None:
        """A try failed."""
        self._failed = True
        self._retry_at_s = self._clock.monotonic_s() + self._open_s
