"""The clock that tests move."""

from __future__ import annotations

import asyncio

from banditmesh.runtime.clock import ManualClock


async def test_time_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(now_s=1000.0)
    assert (clock.now_s(), clock.monotonic_s()) == (1000.0, 0.0)
    await clock.advance(2.5)
    assert (clock.now_s(), clock.monotonic_s()) == (1002.5, 2.5)


async def test_sleepers_wake_in_the_order_of_their_times_and_see_them() -> None:
    clock, woken = ManualClock(), []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic_s()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("late", 3.0), ("early", 1.0), ("early too", 1.0)):
            group.create_task(sleeper(name, seconds))
        await clock.wait_for_sleepers(3)
        await clock.advance(10)
    assert woken == [("early", 1.0), ("early too", 1.0), ("late", 3.0)]


async def test_a_loop_that_sleeps_runs_as_often_as_it_would() -> None:
    clock, ticks = ManualClock(), []

    async def loop() -> None:
        while True:
            await clock.sleep(2)
            ticks.append(clock.monotonic_s())

    task = asyncio.create_task(loop())
    await clock.advance(7)
    assert ticks == [2, 4, 6]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_cancelled_sleeper_wakes_nobody() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1))
    await clock.wait_for_sleepers()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.sleepers == 0
    await clock.advance(2)


async def test_not_yet_due_stays_asleep() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(5))
    await clock.advance(4.999)
    assert not task.done()
    await clock.advance(0.001)
    assert task.done()
