"""Time as an argument: services take a :class:`Clock`, tests move a :class:`ManualClock`."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

import numpy as np


class Clock(Protocol):
    """Wall time, steady time and sleep."""

    def now_s(self) -> float:
        """Seconds since the Unix epoch; may step when the machine's clock is set."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` of steady time; at once (but after one turn of the loop) for zero or less."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """Stands still until :meth:`advance`; sleepers wake in the order of their due times, ties in the order of
    arrival.
    """

    SETTLE_TURNS = 20
    """Turns of the event loop given to woken code before time moves on: it may go through some awaits before it sleeps
    again.
    """

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self._start_s = now_s
        self._elapsed_s = 0.0
        self._arrival = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()

    def now_s(self) -> float:
        return self._start_s + self._elapsed_s

    def monotonic_s(self) -> float:
        return self._elapsed_s

    @property
    def sleepers(self) -> int:
        """How many are asleep."""
        return sum(not wake.done() for _, _, wake in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._arrival), wake))
        self._arrived.set()
        await wake

    async def advance(self, seconds: float) -> None:
        """Move time on, stopping at every sleeper's due time on the way so that code which sleeps in a loop runs as
        often as it would.
        """
        until_s = self._elapsed_s + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= until_s:
            due_s, _, wake = heapq.heappop(self._sleepers)
            if wake.done():  # its task was cancelled
                continue
            self._elapsed_s = due_s
            wake.set_result(None)
            await self._settle()
        self._elapsed_s = until_s

    async def wait_for_sleepers(self, count: int = 1) -> None:
        """Return once ``count`` tasks are asleep: the way to know that the code under test has reached its sleep."""
        while self.sleepers < count:
            self._arrived.clear()
            await self._arrived.wait()

    async def _settle(self) -> None:
        for _ in range(self.SETTLE_TURNS):
            await asyncio.sleep(0)


def utc(seconds: float) -> str:
    """A moment for people."""
    return f"{np.datetime64(int(seconds), 's')}Z"
