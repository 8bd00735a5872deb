"""When Redis is away, one request in a while finds out whether it is back; the others do not wait for that."""

from __future__ import annotations

from banditmesh.runtime.clock import ManualClock
from services.crs_engine.breaker import Breaker


async def test_closed_it_lets_everything_pass() -> None:
    breaker = Breaker(ManualClock())
    assert [breaker.allows() for _ in range(3)] == [True, True, True]


async def test_after_a_failure_nobody_tries_for_a_while_and_then_one_at_a_time() -> None:
    clock = ManualClock()
    breaker = Breaker(clock, open_s=0.5)
    breaker.failed()
    assert not breaker.allows()
    await clock.advance(0.5)
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    await clock.advance(0.5)
    assert breaker.allows()


async def test_a_try_that_went_well_closes_it() -> None:
    clock = ManualClock()
    breaker = Breaker(clock, open_s=0.5)
    breaker.failed()
    await clock.advance(0.5)
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.closed
    assert [breaker.allows(), breaker.allows()] == [True, True]
