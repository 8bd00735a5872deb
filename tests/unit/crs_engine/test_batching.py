"""Waiting requests are taken together, nobody waits for no reason, and who has gone is not answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import DeadlineExceeded, ResourceExhausted
from services.crs_engine.batching import BESIDE, LISTEN_MOST_S, Batcher
from services.crs_engine.engine import Outcome
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline.batch import SelectionRequest


class Gate:
    """A ``select`` that notes what it gets and answers when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.fails: Exception | None = None

    async def select(self, requests: Sequence[SelectionRequest]) -> list[Outcome]:
        self.batches.append([request.user_id for request in requests])
        await self.open.wait()
        if self.fails is not None:
            raise self.fails
        return [Outcome((request.user_id.encode(),)) for request in requests]


def requests(*users: str) -> list[SelectionRequest]:
    return [SelectionRequest("head", user, {}) for user in users]


def batcher(gate: Gate, max_batch: int = 4) -> Batcher:
    return Batcher(gate.select, max_batch, ManualClock(), EngineMetrics(CollectorRegistry()))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_requests_that_arrive_together_are_one_batch() -> None:
    gate = Gate()
    queue = batcher(gate)
    calls = [asyncio.create_task(queue.submit(requests(user))) for user in "abc"]
    await settle()
    gate.open.set()
    assert [(await call)[0].contents for call in calls] == [(b"a",), (b"b",), (b"c",)]
    assert gate.batches == [["a", "b", "c"]]


async def test_what_arrives_while_a_batch_runs_waits_and_then_travels_together() -> None:
    gate = Gate()
    queue = batcher(gate)
    calls = []
    for user in "abcd":
        calls.append(asyncio.create_task(queue.submit(requests(user))))
        await settle()
    assert gate.batches == [["a"]]
    gate.open.set()
    await asyncio.gather(*calls)
    assert gate.batches == [["a"], ["b", "c", "d"]]


async def test_a_second_batch_runs_beside_the_first_when_enough_wait_and_a_third_never() -> None:
    gate = Gate()
    queue = batcher(gate, max_batch=2 * BESIDE)
    calls = [asyncio.create_task(queue.submit(requests("first")))]
    await settle()
    for group in range(3):
        calls.append(asyncio.create_task(queue.submit(requests(*[f"{group}-{n}" for n in range(BESIDE)]))))
        await settle()
    assert [len(batch) for batch in gate.batches] == [1, BESIDE]
    gate.open.set()
    await asyncio.gather(*calls)
    assert [len(batch) for batch in gate.batches] == [1, BESIDE, 2 * BESIDE]


async def test_a_large_group_is_cut_and_answered_in_its_order() -> None:
    gate = Gate()
    gate.open.set()
    users = [f"u{n}" for n in range(10)]
    outcomes = await batcher(gate).submit(requests(*users))
    assert [outcome.contents[0].decode() for outcome in outcomes] == users
    assert [len(batch) for batch in gate.batches] == [4, 4, 2]


async def test_a_group_is_not_torn_apart_by_who_came_before() -> None:
    gate = Gate()
    queue = batcher(gate)
    calls = [asyncio.create_task(queue.submit(requests(*users))) for users in (("a", "b"), ("c", "d", "e"))]
    gate.open.set()
    await asyncio.gather(*calls)
    assert gate.batches == [["a", "b"], ["c", "d", "e"]]


async def test_who_has_gone_before_his_turn_is_left_out() -> None:
    gate = Gate()
    queue = batcher(gate)
    calls = []
    for user in "abc":
        calls.append(asyncio.create_task(queue.submit(requests(user))))
        await settle()
    calls[1].cancel()
    await settle()
    gate.open.set()
    assert (await calls[2])[0].contents == (b"c",)
    assert gate.batches == [["a"], ["c"]]
    assert calls[1].cancelled()


async def test_who_goes_while_his_batch_runs_takes_nobody_along() -> None:
    gate = Gate()
    queue = batcher(gate)
    calls = [asyncio.create_task(queue.submit(requests(user))) for user in "ab"]
    await settle()
    calls[0].cancel()
    await settle()
    gate.open.set()
    assert (await calls[1])[0].contents == (b"b",)


async def test_a_failure_reaches_those_who_wait_and_the_next_batch_runs() -> None:
    gate = Gate()
    queue = batcher(gate)
    gate.fails = RuntimeError("a bug")
    gate.open.set()
    with pytest.raises(RuntimeError, match="a bug"):
        await queue.submit(requests("a"))
    gate.fails = None
    assert (await queue.submit(requests("b")))[0].contents == (b"b",)


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    gate, registry = Gate(), CollectorRegistry()
    queue = Batcher(gate.select, 4, ManualClock(), EngineMetrics(registry), max_waiting=6)
    running = asyncio.create_task(queue.submit(requests("first")))
    await settle()
    waiting = [asyncio.create_task(queue.submit(requests(*group))) for group in ("abc", "def")]
    await settle()
    with pytest.raises(ResourceExhausted, match="6 requests wait") as refused:
        await queue.submit(requests("late"))
    assert refused.value.retry_after_s is not None
    at_the_door = queue.refusal(60.0)
    assert at_the_door is not None
    assert at_the_door.message == "6 requests wait already"
    assert registry.get_sample_value("banditmesh_engine_refused_total", {"reason": "full"}) == 2
    gate.open.set()
    assert [len(answer) for answer in await asyncio.gather(running, *waiting)] == [1, 3, 3]
    assert (await queue.submit(requests("again")))[0].contents == (b"again",)


async def test_a_call_that_is_larger_than_the_queue_comes_in_when_nobody_waits() -> None:
    gate = Gate()
    gate.open.set()
    queue = Batcher(gate.select, 4, ManualClock(), EngineMetrics(CollectorRegistry()), max_waiting=6)
    assert len(await queue.submit(requests(*"abcdefgh"))) == 8


async def test_who_would_wait_past_his_deadline_is_told_at_once() -> None:
    gate, registry, clock = Gate(), CollectorRegistry(), ManualClock()
    queue = Batcher(gate.select, BESIDE, clock, EngineMetrics(registry))
    first = asyncio.create_task(queue.submit(requests(*[f"u{n}" for n in range(BESIDE)])))
    await settle()
    await clock.advance(BESIDE * 0.01)
    gate.open.set()
    await first
    gate.open.clear()
    calls = [asyncio.create_task(queue.submit(requests(*[f"{n}-{m}" for m in range(BESIDE)]))) for n in range(3)]
    await settle()
    with pytest.raises(ResourceExhausted, match=r"0\.1 s are left"):
        await queue.submit(requests("hasty"), 0.1)
    at_the_door = queue.refusal(0.1)
    assert at_the_door is not None
    assert at_the_door.message.startswith("with those in front the call would take")
    assert queue.refusal(60.0) is queue.refusal(None) is None
    assert registry.get_sample_value("banditmesh_engine_refused_total", {"reason": "late"}) == 2
    calls.append(asyncio.create_task(queue.submit(requests("patient"), 60.0)))
    gate.open.set()
    await asyncio.gather(*calls)


async def test_nothing_is_done_for_a_request_whose_deadline_passed_while_it_waited() -> None:
    gate, clock, registry = Gate(), ManualClock(), CollectorRegistry()
    queue = Batcher(gate.select, 4, clock, EngineMetrics(registry))
    running = asyncio.create_task(queue.submit(requests("a")))
    await settle()
    late = asyncio.create_task(queue.submit(requests("b"), 0.5))
    in_time = asyncio.create_task(queue.submit(requests("c"), 5.0))
    await settle()
    await clock.advance(1.0)
    gate.open.set()
    await running
    with pytest.raises(DeadlineExceeded):
        await late
    assert (await in_time)[0].contents == (b"c",)
    assert gate.batches == [["a"], ["c"]]
    assert registry.get_sample_value("banditmesh_engine_dropped_total") == 1


async def test_while_calls_keep_coming_they_are_taken_in_before_a_batch_starts_but_not_for_ever() -> None:
    gate, clock = Gate(), ManualClock()
    gate.open.set()
    turns = iter(range(10**6))
    queue = Batcher(gate.select, 4, clock, EngineMetrics(CollectorRegistry()), arrivals=lambda: next(turns))
    call = asyncio.create_task(queue.submit(requests(*"abcd")))
    await settle()
    assert gate.batches == []
    await clock.advance(LISTEN_MOST_S)
    await call
    assert gate.batches == [["a", "b", "c", "d"]]


async def test_while_calls_stand_in_line_a_batch_waits_for_some_of_them() -> None:
    gate, crowded = Gate(), True
    gate.open.set()
    metrics = EngineMetrics(CollectorRegistry())
    queue = Batcher(gate.select, 4, ManualClock(), metrics, arrivals=lambda: 7, crowded=lambda: crowded)
    call = asyncio.create_task(queue.submit(requests("a")))
    await settle()
    assert gate.batches == []
    crowded = False
    await call
    assert gate.batches == [["a"]]


async def test_a_full_batch_starts_when_nobody_else_is_coming() -> None:
    gate = Gate()
    gate.open.set()
    queue = Batcher(gate.select, 4, ManualClock(), EngineMetrics(CollectorRegistry()), arrivals=lambda: 7)
    assert len(await queue.submit(requests(*"abcd"))) == 4
