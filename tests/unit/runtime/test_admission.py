"""What calls are told that are refused."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2

from banditmesh.runtime.admission import FIRST_DELAY_S, READY, Overflow, Refusal, Refusals, RetryDelay


class Steady:
    """Seconds that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def delay_s(refusal: Refusal) -> float:
    """What the refusal tells its caller to wait."""
    retry = error_details_pb2.RetryInfo()
    assert any(each.Unpack(retry) for each in status_pb2.Status.FromString(refusal.details).details)
    return float(retry.retry_delay.ToTimedelta().total_seconds())


def test_refusals_are_written_in_advance_and_tell_each_caller_another_delay() -> None:
    made: list[int] = []
    refusals = Refusals(RetryDelay(Steady()))
    told = [refusals.next(lambda: f"{made.append(1) or len(made)} wait") for _ in range(50 * READY)]
    assert len(made) == READY
    assert {each.code for each in told} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert {each.message for each in told} == {f"{n} wait" for n in range(1, READY + 1)}
    delays = {delay_s(each) for each in told}
    assert len(delays) == READY
    assert FIRST_DELAY_S / 2 <= min(delays) < max(delays) <= FIRST_DELAY_S * 3 / 2


def test_when_more_are_refused_than_served_the_next_refusals_tell_longer_delays() -> None:
    time_s = Steady()
    refusals = Refusals(RetryDelay(time_s))
    before = [delay_s(refusals.next(str)) for _ in range(50 * READY)]
    time_s.now_s += 1.0
    assert min(delay_s(refusals.next(str)) for _ in range(READY)) > max(before)


def told(overflow: Overflow, calls: int) -> int:
    """How many of so many calls are told to wait."""
    return sum(overflow.refuses() for _ in range(calls))


def test_while_the_transport_cuts_calls_off_one_in_ten_of_the_others_is_told_to_wait() -> None:
    time_s, cut_off = Steady(), 0
    overflow = Overflow(lambda: cut_off, RetryDelay(time_s), time_s)
    time_s.now_s += 1.0
    assert told(overflow, 100) == 0
    cut_off = 500
    time_s.now_s += 1.0
    assert told(overflow, 100) == 10
    first = delay_s(overflow.refusal())
    cut_off = 1000
    time_s.now_s += 1.0
    assert told(overflow, 100) == 10
    assert delay_s(overflow.refusal()) > first  # those that were cut off count as refused
    time_s.now_s += 1.0
    assert told(overflow, 100) == 0
