"""What is not answered is sent again, the first answer counts, and a busy server does not get twice the work."""

from __future__ import annotations

import asyncio

import pytest

from banditmesh.hedging import EARNED, FULL_BUDGET, MOST_HEDGES, Hedging
from banditmesh.runtime.errors import DeadlineExceeded, Unavailable

AT_ONCE_S = 0.0
NEVER_S = 1e6


class Servers:
    """Each attempt goes to the next one; the test answers."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[str]] = []
        self.cancelled: list[int] = []
        self._news = asyncio.Event()

    async def attempt(self) -> str:
        number = len(self.answers)
        self.answers.append(asyncio.get_running_loop().create_future())
        self._news.set()
        try:
            return await self.answers[number]
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise

    async def asked(self, count: int, call: asyncio.Task[str]) -> None:
        """So many attempts are under way, or the call is over before."""
        call.add_done_callback(lambda _call: self._news.set())
        while len(self.answers) < count and not call.done():
            self._news.clear()
            await self._news.wait()
        assert len(self.answers) >= count


async def test_an_answer_in_time_needs_no_hedge() -> None:
    servers = Servers()
    call = asyncio.create_task(Hedging(NEVER_S).first(servers.attempt))
    await servers.asked(1, call)
    servers.answers[0].set_result("a")
    assert await call == "a"
    assert len(servers.answers) == 1


async def test_a_server_that_hangs_is_passed_over_and_its_attempt_cancelled() -> None:
    servers = Servers()
    call = asyncio.create_task(Hedging(AT_ONCE_S).first(servers.attempt))
    await servers.asked(2, call)
    servers.answers[1].set_result("b")
    assert await call == "b"
    await asyncio.sleep(0)
    assert 0 in servers.cancelled


async def test_a_late_answer_of_the_first_server_still_counts() -> None:
    servers = Servers()
    call = asyncio.create_task(Hedging(AT_ONCE_S).first(servers.attempt))
    await servers.asked(2, call)
    servers.answers[0].set_result("a")
    assert await call == "a"


async def test_an_error_waits_for_those_who_may_still_answer() -> None:
    servers = Servers()
    call = asyncio.create_task(Hedging(AT_ONCE_S).first(servers.attempt))
    await servers.asked(2, call)
    servers.answers[1].set_exception(Unavailable("stopping"))
    await servers.asked(3, call)
    servers.answers[2].set_result("c")
    assert await call == "c"


async def test_when_all_have_failed_the_last_one_says_why() -> None:
    servers = Servers()
    call = asyncio.create_task(Hedging(AT_ONCE_S).first(servers.attempt))
    await servers.asked(1 + MOST_HEDGES, call)
    for answer in servers.answers[:-1]:
        answer.set_exception(Unavailable("stopping"))
    servers.answers[-1].set_exception(DeadlineExceeded("late"))
    with pytest.raises((Unavailable, DeadlineExceeded)):
        await call


async def test_without_a_wait_nothing_is_sent_twice() -> None:
    servers = Servers()
    call = asyncio.create_task(Hedging(None).first(servers.attempt))
    await servers.asked(1, call)
    servers.answers[0].set_result("a")
    assert await call == "a"


async def test_a_call_that_is_given_up_takes_its_attempts_with_it() -> None:
    servers = Servers()
    call = asyncio.create_task(Hedging(AT_ONCE_S).first(servers.attempt))
    await servers.asked(1 + MOST_HEDGES, call)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await asyncio.sleep(0)
    assert sorted(servers.cancelled) == list(range(1 + MOST_HEDGES))


async def attempts_of_a_call(hedging: Hedging, *, won_by_a_hedge: bool) -> int:
    """How often it was sent, when each server is slow."""
    sent = 0

    async def attempt() -> int:
        nonlocal sent
        sent += 1
        mine = sent
        for _ in range(1000 if mine == 1 and won_by_a_hedge else 50):  # turns of the loop; hedges go in the next one
            await asyncio.sleep(0)
        return sent

    return await hedging.first(attempt)


async def test_servers_that_are_merely_busy_use_the_budget_up() -> None:
    hedging = Hedging(AT_ONCE_S)
    sent = [await attempts_of_a_call(hedging, won_by_a_hedge=False) for _ in range(20)]
    assert sum(sent) - len(sent) <= FULL_BUDGET + EARNED * len(sent)
    assert sent[-1] == 1


async def test_a_server_that_hangs_for_long_does_not_use_it_up() -> None:
    hedging = Hedging(AT_ONCE_S)
    sent = [await attempts_of_a_call(hedging, won_by_a_hedge=True) for _ in range(40)]
    assert min(sent) >= 2
