"""Whose a CancelledError is, and who waits for threads that know of none.

A client library that cancels a task of its own and then awaits it raises CancelledError into whoever called it
(aiokafka 0.14 does when a producer is stopped during an outage). To the caller's task that looks like its own end: it
would be over, silently, with nobody having asked for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def is_cancelled() -> bool:
    """Whether somebody has cancelled the task that runs now; False: the CancelledError at hand is somebody else's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def on_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`, for work on what the caller closes: who is cancelled goes on when the thread has ended.

    A thread cannot be cancelled. pyarrow, for one, ends the process when a file is closed that a thread still reads.
    """
    # A future of the executor and no task: at a Ctrl-C asyncio cancels every task that there is, not only ours.
    called = partial(copy_context().run, work, *args, **kwargs)
    return await to_its_end(asyncio.get_running_loop().run_in_executor(None, called))


async def to_its_end(work: Awaitable[T]) -> T:
    """Await work that is not cancelled with its caller, as its thread goes on: who is cancelled goes on when it has
    ended. What it writes to a folder is there then, and goes with the folder."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # of no interest any more
        raise
