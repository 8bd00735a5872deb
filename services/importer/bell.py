"""Tells the coroutines of this process that something has changed."""

from __future__ import annotations

import asyncio

from banditmesh.runtime.clock import Clock


class Bell:
    """Wakes everybody who listens.

    Take :meth:`next_ring` before looking at what may change, and wait for it afterwards: a change in between is not
    missed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake all who listen now."""
        self._event.set()
        self._event = asyncio.Event()

    def next_ring(self) -> asyncio.Event:
        """Return the event that is set at the next ring."""
        return self._event

    async def wait(self, ring: asyncio.Event, most_s: float) -> None:
        """Return when ``ring`` is set, at the latest after ``most_s``."""
        heard = asyncio.ensure_future(ring.wait())
        late = asyncio.ensure_future(self._clock.sleep(most_s))
        try:
            await asyncio.wait((heard, late), return_when=asyncio.FIRST_COMPLETED)
        finally:
            heard.cancel()
            late.cancel()
