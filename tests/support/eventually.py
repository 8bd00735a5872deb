"""Waiting for what will be seen from outside sooner or later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE_S = 0.1


async def eventually(ask: Callable[[], Awaitable[T]], *, within_s: float = 30.0) -> T:
    """Ask again and again until the answer is true (not None, 0, empty), and return it.

    Raises:
        AssertionError: It was not within ``within_s``; tells the last answer.
    """
    deadline = time.monotonic() + within_s
    while not (answer := await ask()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s; the last answer was {answer!r}"
        await asyncio.sleep(PAUSE_S)
    return answer


async def eventually_so(ask: Callable[[], T], *, within_s: float = 30.0) -> T:
    """As :func:`eventually`, for a question that needs no awaiting."""

    async def asked() -> T:
        return ask()

    return await eventually(asked, within_s=within_s)


def eventually_true(ask: Callable[[], T], *, within_s: float = 30.0) -> T:
    """As :func:`eventually`, without an event loop."""
    deadline = time.monotonic() + within_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s; the last answer was {answer!r}"
        time.sleep(PAUSE_S)
    return answer
