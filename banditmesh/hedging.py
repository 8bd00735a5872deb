"""Another try beside the first one, when that has no answer for long; the first answer counts.

A server that hangs (its node is lost, its process has no CPU) keeps its connection until keepalive gives it up, after
25 s. Until then one of two calls would go there and wait in vain, so what has no answer after a while is sent again, to
the server whose turn is next (hedged requests: Dean and Barroso, "The Tail at Scale", CACM 2013).

Servers that are merely busy must not get twice the work. So hedges are paid for out of a budget, as gRPC throttles
retries (proposal A6): each costs one; those of a call whose hedge was answered first are given back; a call that
needed none adds a tenth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

MOST_HEDGES = 3
"""Of one call."""
FULL_BUDGET = 10.0
EARNED = 0.1
"""What a call that needs no hedge adds to the budget."""

Answer = TypeVar("Answer")


class Hedging:
    """Belongs to one event loop.

    Args:
        after_s: Seconds without an answer until a call is sent again; None: never.
    """

    def __init__(self, after_s: float | None) -> None:
        self._after_s = after_s
        self._budget = FULL_BUDGET

    async def first(self, attempt: Callable[[], Awaitable[Answer]]) -> Answer:
        """The first answer of ``attempt()`` and its hedges; the others are cancelled. Raises what the last one raised
        when all have failed: a hedge is for silence, an error is an answer."""
        if self._after_s is None:
            return await attempt()
        first = _start(attempt)
        attempts, hedges = {first}, 0
        try:
            while True:
                may_hedge = hedges < MOST_HEDGES and self._budget >= 1.0
                done, attempts = await asyncio.wait(
                    attempts,
                    timeout=self._after_s if may_hedge else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                answered = next((each for each in done if not each.cancelled() and each.exception() is None), None)
                if answered is not None:
                    self._earn(hedges, won=answered is not first)
                    return answered.result()
                if not done:
                    self._budget -= 1.0
                    hedges += 1
                    attempts.add(_start(attempt))
                elif not attempts:
                    return done.pop().result()
        finally:
            for each in attempts:
                each.cancel()

    def _earn(self, hedges: int, *, won: bool) -> None:
        earned = float(hedges) if won else EARNED if not hedges else 0.0
        self._budget = min(FULL_BUDGET, self._budget + earned)


def _start(attempt: Callable[[], Awaitable[Answer]]) -> asyncio.Task[Answer]:
    async def run() -> Answer:
        return await attempt()

    task = asyncio.create_task(run())
    task.add_done_callback(_look)
    return task


def _look(attempt: asyncio.Task[Answer]) -> None:
    """An attempt that fails when nobody waits for it any more is no news."""
    if not attempt.cancelled():
        attempt.exception()
