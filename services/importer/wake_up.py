"""Tells the coroutines of this process that something has changed."""

from __future__ import annotations

import asyncio

from banditmesh.runtime.clock import Clock


class WakeUp:
    """Wakes everybody who listens.

    Take :meth:`next_wake_up` before looking at what may change, and wait for it afterwards: a change in between is not
    missed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()

    def wake_all(self) -> None:
        """Wake all who listen now."""
        self._event.set()
        self._event = asyncio.Event()

    def next_wake_up(self) -> asyncio.Event:
        """Return the event that is set when they are woken next."""
        return self._event

    async def wait(self, signal: asyncio.Event, most_s: float) -> None:
        """Return when ``signal`` is set, at the latest after ``most_s``."""
        woken = asyncio.ensure_future(signal.wait())
        late = asyncio.ensure_future(self._clock.sleep(most_s))
        try:
            await asyncio.wait((woken, late), return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            late.cancel()
