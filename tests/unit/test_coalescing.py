"""Requests that come at the same time travel together, and none of them suffers from the others."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditmesh.coalescing import Coalescer, CoalescingLimits
from banditmesh.runtime.errors import DeadlineExceeded, FailedPrecondition, Internal, MeshError, NotFound, Unavailable

FOR_EVER_S = 1e6
Answers = Sequence[str | MeshError]


class Wire:
    """Takes calls and lets the test answer them."""

    def __init__(self, **limits: Any) -> None:
        self.calls: list[list[str]] = []
        self.timeouts_s: list[float] = []
        self._answers: list[asyncio.Future[Answers]] = []
        self._news = asyncio.Event()
        self.coalescer = Coalescer[str, str](self._send, CoalescingLimits(**({"max_wait_s": FOR_EVER_S} | limits)))

    async def _send(self, requests: Sequence[str], timeout_s: float) -> Answers:
        self.calls.append(list(requests))
        self.timeouts_s.append(timeout_s)
        self._answers.append(asyncio.get_running_loop().create_future())
        self._news.set()
        return await self._answers[-1]

    def ask(self, *requests: str, within_s: float = FOR_EVER_S) -> list[asyncio.Task[str]]:
        deadline = asyncio.get_running_loop().time() + within_s
        return [asyncio.create_task(self.coalescer.ask(request, deadline)) for request in requests]

    async def wait_for_calls(self, count: int) -> None:
        while len(self.calls) < count:
            self._news.clear()
            await self._news.wait()

    def answer(self, call: int, answers: Answers | None = None) -> None:
        """By default each request is answered with itself in capitals."""
        self._answers[call].set_result([each.upper() for each in self.calls[call]] if answers is None else answers)

    def fail(self, call: int, error: Exception) -> None:
        self._answers[call].set_exception(error)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def error_of(task: asyncio.Task[str]) -> BaseException:
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, BaseException)
    return result


async def two_in_one_call() -> tuple[Wire, asyncio.Task[str], asyncio.Task[str]]:
    """Selections ``b`` and ``c``, which travel together in call 1; call 0 has been answered."""
    wire = Wire()
    wire.ask("a")
    await wire.wait_for_calls(1)
    b, c = wire.ask("b", "c")
    await settle()
    wire.answer(0)
    await wire.wait_for_calls(2)
    return wire, b, c


async def test_a_lone_request_goes_out_at_once() -> None:
    wire = Wire()
    (a,) = wire.ask("a")
    await wire.wait_for_calls(1)
    wire.answer(0)
    assert await a == "A"


async def test_what_arrives_while_a_call_is_under_way_goes_out_together_when_it_has_ended() -> None:
    wire = Wire()
    tasks = wire.ask("a")
    await wire.wait_for_calls(1)
    tasks += wire.ask("b", "c", "d")
    await settle()
    assert wire.calls == [["a"]]
    wire.answer(0)
    await wire.wait_for_calls(2)
    wire.answer(1)
    assert wire.calls == [["a"], ["b", "c", "d"]]
    assert await asyncio.gather(*tasks) == ["A", "B", "C", "D"]


async def test_no_call_is_larger_than_the_limit_and_a_full_one_does_not_wait() -> None:
    wire = Wire(max_batch=2)
    wire.ask("a", "b", "c", "d", "e", "f")
    await settle()
    assert wire.calls == [["a"], ["b", "c"], ["d", "e"]]


async def test_there_are_never_more_calls_under_way_than_the_limit() -> None:
    wire = Wire(max_batch=1, max_calls=2)
    wire.ask("a", "b", "c", "d")
    await settle()
    assert wire.calls == [["a"], ["b"]]
    wire.answer(1)
    await wire.wait_for_calls(3)
    assert wire.calls[2] == ["c"]


async def test_a_call_that_hangs_holds_others_up_no_longer_than_the_limit() -> None:
    wire = Wire(max_wait_s=0.01)
    (hung,) = wire.ask("hung")
    await wire.wait_for_calls(1)
    (b,) = wire.ask("b")
    await wire.wait_for_calls(2)
    wire.answer(1)
    assert await b == "B"
    assert not hung.done()


async def test_the_call_gets_the_longest_deadline_and_a_late_caller_takes_nobody_along() -> None:
    wire = Wire()
    wire.ask("first")
    await wire.wait_for_calls(1)
    (hasty,), (patient,) = wire.ask("hasty", within_s=0.02), wire.ask("patient", within_s=100)
    await settle()
    wire.answer(0)
    await wire.wait_for_calls(2)
    assert wire.calls[1] == ["hasty", "patient"]
    assert 99 < wire.timeouts_s[1] <= 100
    assert isinstance(await error_of(hasty), DeadlineExceeded)
    wire.answer(1)
    assert await patient == "PATIENT"


async def test_a_deadline_that_is_over_is_no_negative_wait() -> None:
    (late,) = Wire().ask("late", within_s=-1.0)
    with pytest.raises(DeadlineExceeded, match="no answer within 0 s"):
        await late


async def test_who_gives_up_before_the_call_goes_out_is_not_sent() -> None:
    wire = Wire()
    wire.ask("a")
    await wire.wait_for_calls(1)
    cancelled, stays = wire.ask("cancelled", "stays")
    (late,) = wire.ask("late", within_s=0.0)
    await settle()
    cancelled.cancel()
    assert isinstance(await error_of(late), DeadlineExceeded)
    assert isinstance(await error_of(cancelled), asyncio.CancelledError)
    wire.answer(0)
    await wire.wait_for_calls(2)
    assert wire.calls[1] == ["stays"]
    wire.answer(1)
    assert await stays == "STAYS"


async def test_a_call_of_nobody_is_not_made() -> None:
    lost: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: lost.append(context))
    wire = Wire()
    (a,) = wire.ask("a")
    await wire.wait_for_calls(1)
    (b,) = wire.ask("b")
    await settle()
    b.cancel()
    await error_of(b)
    wire.answer(0)
    await a
    await settle()
    gc.collect()  # a task that failed without a witness is only reported when it is gone
    assert wire.calls == [["a"]]
    assert lost == []


async def test_a_caller_who_is_cancelled_while_the_call_is_under_way_takes_nobody_along() -> None:
    wire, b, c = await two_in_one_call()
    b.cancel()
    await error_of(b)
    wire.answer(1)
    assert await c == "C"


async def test_a_call_that_fails_fails_for_all_and_each_raises_an_error_of_its_own() -> None:
    wire, b, c = await two_in_one_call()
    wire.fail(1, Unavailable("away", retry_after_s=0.5))
    errors = await error_of(b), await error_of(c)
    assert all(isinstance(error, Unavailable) and error.retry_after_s == 0.5 for error in errors)
    assert errors[0] is not errors[1]


async def test_an_error_in_the_place_of_an_answer_is_that_callers_alone() -> None:
    wire = Wire(max_batch=2)
    wire.ask("a")
    await wire.wait_for_calls(1)
    b, c = wire.ask("b", "c")
    await wire.wait_for_calls(2)
    wire.answer(1, [NotFound("no b"), "C"])
    assert isinstance(await error_of(b), NotFound)
    assert await c == "C"


@pytest.mark.parametrize("answers", [[], ["A", "B"]])
async def test_a_wrong_number_of_answers_is_nobodys_answer(answers: list[str]) -> None:
    wire = Wire()
    (a,) = wire.ask("a")
    await wire.wait_for_calls(1)
    wire.answer(0, answers)
    assert isinstance(await error_of(a), Internal)


async def test_a_bug_in_the_call_reaches_whoever_waits() -> None:
    wire = Wire()
    (a,) = wire.ask("a")
    await wire.wait_for_calls(1)
    wire.fail(0, KeyError("oops"))
    assert "oops" in str(await error_of(a))


async def test_closing_ends_everybodys_wait_and_takes_no_more() -> None:
    wire = Wire(max_calls=1)
    a, b = wire.ask("a", "b")
    await wire.wait_for_calls(1)
    await wire.coalescer.close()
    (after,) = wire.ask("after")
    for task in (a, b, after):
        assert isinstance(await error_of(task), FailedPrecondition)


async def test_no_requests_have_no_answers() -> None:
    assert await Wire().coalescer.ask_all([], asyncio.get_running_loop().time() + 1) == []


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 5), st.integers(1, 3))
def test_whatever_the_arrivals_each_gets_its_own_answer(arrivals: list[int], max_batch: int, max_calls: int) -> None:
    async def body() -> None:
        sizes: list[int] = []
        under_way: list[int] = [0]

        async def send(requests: Sequence[int], _timeout_s: float) -> Sequence[int]:
            sizes.append(len(requests))
            under_way.append(under_way[-1] + 1)
            for _ in range(len(requests) % 3):
                await asyncio.sleep(0)
            under_way.append(under_way[-1] - 1)
            return [-request for request in requests]

        coalescer = Coalescer[int, int](send, CoalescingLimits(max_batch, max_calls, 0.001))
        deadline = asyncio.get_running_loop().time() + FOR_EVER_S
        tasks = []
        for number, turns in enumerate(arrivals):
            tasks.append(asyncio.create_task(coalescer.ask(number, deadline)))
            for _ in range(turns):
                await asyncio.sleep(0)
        assert await asyncio.gather(*tasks) == [-number for number in range(len(arrivals))]
        assert max(sizes, default=0) <= max_batch
        assert max(under_way) <= max_calls
        assert sum(sizes) == len(arrivals)

    asyncio.run(body())


async def test_who_would_not_be_answered_in_time_makes_room_for_those_who_will(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(max_batch=2, max_calls=1)
    wire.coalescer._call_s = 10.0  # as after slow calls
    first = wire.ask("a")
    await wire.wait_for_calls(1)
    late, fresh = wire.ask("b", "c", within_s=5.0), wire.ask("d", "e", within_s=60.0)
    await settle()
    wire.answer(0)
    await wire.wait_for_calls(2)
    assert wire.calls[1] == ["d", "e"]
    assert [type(await error_of(task)) for task in late] == [DeadlineExceeded] * 2
    wire.answer(1)
    assert [await task for task in (*first, *fresh)] == ["A", "D", "E"]


async def test_a_short_deadline_is_tried_when_nobody_else_would_be_served_instead() -> None:
    wire = Wire(max_batch=2)
    wire.coalescer._call_s = 10.0
    (hasty,) = wire.ask("a", within_s=5.0)
    await wire.wait_for_calls(1)
    wire.answer(0)
    assert await hasty == "A"
