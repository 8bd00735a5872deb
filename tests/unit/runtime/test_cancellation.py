"""Cancelling what runs on a thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from banditmesh.runtime.cancellation import on_thread


async def test_what_the_thread_gives_is_the_answer() -> None:
    assert await on_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await on_thread(divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_goes_on_when_the_thread_has_ended(fails: bool) -> None:
    began, goes_on = asyncio.Event(), threading.Event()
    loop, seen = asyncio.get_running_loop(), list[str]()

    def work() -> None:
        loop.call_soon_threadsafe(began.set)
        goes_on.wait()
        seen.append("thread")
        if fails:
            raise OSError("nobody listens")

    async def user() -> None:
        try:
            await on_thread(work)
        finally:
            seen.append("closed")

    task = asyncio.create_task(user())
    await began.wait()
    for _ in range(2):  # impatient
        for each in asyncio.all_tasks() - {asyncio.current_task()}:  # as asyncio.run does at a Ctrl-C
            each.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
    assert not task.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["thread", "closed"]
