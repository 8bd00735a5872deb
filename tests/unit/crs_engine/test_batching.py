"""Waiting requests are taken together, nobody waits for no reason, and who has gone is not answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from banditmesh.runtime.clock import ManualClock
from services.crs_engine.batching import BESIDE, Batcher
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
