"""A stall is not an outage; in an outage one small read beside the traffic finds out when Redis is back."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import Unavailable
from services.crs_engine.breaker import FEWEST_FAILURES, PROBE_EVERY_S, WINDOW_S, Breaker
from services.crs_engine.metrics import EngineMetrics


class Redis:
    """Answers probes when it is up, and when it is let."""

    def __init__(self) -> None:
        self.up = False
        self.error: Exception = Unavailable("away")
        self.probes = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self) -> None:
        self.probes += 1
        await self.answers.wait()
        if not self.up:
            raise self.error


class World:
    """A breaker and what it needs."""

    def __init__(self) -> None:
        self.clock, self.redis, self.registry = ManualClock(), Redis(), CollectorRegistry()
        self.breaker = Breaker(self.clock, self.redis.read, EngineMetrics(self.registry))

    def break_it(self) -> None:
        for _ in range(FEWEST_FAILURES):
            self.breaker.failed()

    @property
    def shown_open(self) -> float | None:
        return self.registry.get_sample_value("banditmesh_engine_redis_breaker_open")


async def test_closed_it_lets_everything_pass() -> None:
    world = World()
    assert [world.breaker.allows() for _ in range(3)] == [True, True, True]
    assert world.redis.probes == 0


async def test_a_stall_that_a_few_batches_meet_does_not_touch_the_others() -> None:
    world = World()
    opened = [world.breaker.failed() for _ in range(FEWEST_FAILURES - 1)]
    assert not any(opened)
    assert world.breaker.allows()


async def test_failures_among_many_successes_leave_it_closed() -> None:
    world = World()
    for _ in range(3 * FEWEST_FAILURES):
        world.breaker.succeeded()
    world.break_it()
    assert world.breaker.allows()


async def test_failures_of_long_ago_do_not_count() -> None:
    world = World()
    for _ in range(FEWEST_FAILURES - 1):
        world.breaker.failed()
    await world.clock.advance(WINDOW_S)
    assert not world.breaker.failed()
    assert world.breaker.allows()


async def test_when_most_reads_of_a_window_fail_nobody_tries_any_more() -> None:
    world = World()
    world.breaker.succeeded()
    world.break_it()
    assert [world.breaker.allows() for _ in range(3)] == [False, False, False]
    assert world.shown_open == 1
    await world.breaker.stop()


async def test_open_it_probes_with_one_read_at_a_time_and_nobody_waits_for_it() -> None:
    world = World()
    world.break_it()
    world.redis.answers.clear()
    await world.clock.advance(PROBE_EVERY_S)
    await world.clock.advance(10 * PROBE_EVERY_S)
    assert [world.breaker.allows() for _ in range(3)] == [False, False, False]
    assert world.redis.probes == 1
    await world.breaker.stop()


async def test_a_probe_that_fails_is_tried_again_a_little_later() -> None:
    world = World()
    world.break_it()
    for expected in (1, 2):
        await world.clock.advance(PROBE_EVERY_S)
        assert world.redis.probes == expected
        assert not world.breaker.allows()
    await world.breaker.stop()


async def test_a_probe_that_fails_with_a_bug_is_not_the_last_one() -> None:
    world = World()
    world.break_it()
    world.redis.error = ValueError("nobody expected this")
    await world.clock.advance(PROBE_EVERY_S)
    world.redis.up = True
    await world.clock.advance(PROBE_EVERY_S)
    assert world.breaker.allows()


async def test_the_first_request_after_a_pause_without_any_is_let_through_when_redis_is_back() -> None:
    world = World()
    world.break_it()
    await world.clock.advance(10 * PROBE_EVERY_S)
    world.redis.up = True
    await world.clock.advance(PROBE_EVERY_S)
    assert world.breaker.allows()


async def test_a_probe_that_succeeds_closes_it_and_the_past_is_forgotten() -> None:
    world = World()
    world.break_it()
    world.redis.up = True
    await world.clock.advance(PROBE_EVERY_S)
    assert world.breaker.allows()
    assert world.shown_open == 0
    assert not world.breaker.failed()
    assert world.breaker.allows()
