"""What the log says of an outage."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from banditmesh.runtime.errors import FailedPrecondition, Unavailable
from banditmesh.runtime.outages import AGAIN_WITHIN_S, FORGOTTEN_S, LASTED_S, LEFT_S, REMIND_FIRST_S, Outages

AWAY = Unavailable("Redis at redis:6379 does not answer", dependency="redis")


class Process:
    """Its outages, a time that the test moves, and what was logged."""

    def __init__(self, lines: list[MutableMapping[str, Any]]) -> None:
        self.now_s = 1000.0
        self.lines = lines
        self.outages = Outages(lambda: self.now_s)
        self.work = [self.outages.work(f"partition {number}") for number in range(32)]

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    def fail_for(self, seconds: float, every_s: float = 0.5) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            for work in self.work:
                work.failed(AWAY)
            self.now_s += every_s

    def recover(self) -> None:
        for work in self.work:
            work.well()


@pytest.fixture
def process() -> Iterator[Process]:
    with capture_logs() as lines:
        yield Process(lines)


def test_an_outage_is_two_lines_however_much_work_meets_it_how_often(process: Process) -> None:
    process.outages.meanwhile("redis", "joining waits")
    process.fail_for(30)
    process.recover()
    began, over = process.lines
    assert began == {
        "event": "dependency down",
        "log_level": "warning",
        "dependency": "redis",
        "work": "partition 0",
        "reason": "Redis at redis:6379 does not answer",
        "meanwhile": "joining waits",
    }
    assert over == {
        "event": "dependency up",
        "log_level": "info",
        "dependency": "redis",
        "for_s": 30.0,
        "failures": 60 * 32,
    }


def test_a_long_outage_is_told_again_at_growing_distance(process: Process) -> None:
    process.fail_for(3600)
    reminders = [line["for_s"] for line in process.lines if line["event"] == "dependency still down"]
    assert reminders == [60, 180, 420, 900, 1860]
    assert len(process.lines[1]["work"]) == 32


def test_it_is_over_when_the_last_of_them_is_well(process: Process) -> None:
    process.fail_for(3)
    for work in process.work[:-1]:
        work.well()
    assert process.events == ["dependency down"]
    process.work[-1].well()
    assert process.events == ["dependency down", "dependency up"]


def test_two_dependencies_are_two_outages(process: Process) -> None:
    process.work[0].failed(AWAY)
    process.work[0].failed(Unavailable("Kafka does not answer", dependency="kafka"))
    process.work[0].well()
    assert [(line["event"][11:], line["dependency"]) for line in process.lines] == [
        ("down", "redis"),
        ("down", "kafka"),
        ("up", "redis"),
        ("up", "kafka"),
    ]


def test_an_error_that_names_no_dependency_is_the_work_s_own(process: Process) -> None:
    process.work[0].failed(FailedPrecondition("it ends at 5"))
    process.work[1].failed(FailedPrecondition("it ends at 7"))
    process.outages.work("check", of="topics").failed(TimeoutError())
    assert [line["dependency"] for line in process.lines] == ["partition 0", "partition 1", "topics"]


def test_a_group_of_errors_is_what_its_first_is(process: Process) -> None:
    process.work[0].failed(ExceptionGroup("", [ExceptionGroup("", [AWAY])]))
    assert (process.lines[0]["dependency"], process.lines[0]["reason"]) == ("redis", AWAY.message)


def test_what_flaps_is_told_once(process: Process) -> None:
    for _ in range(20):
        process.fail_for(1)
        process.recover()
        process.now_s += 1
    assert process.events == ["dependency down", "dependency up"]


def test_what_was_over_a_moment_ago_and_lasts_is_told(process: Process) -> None:
    process.fail_for(1)
    process.recover()
    process.now_s += AGAIN_WITHIN_S / 2
    process.fail_for(LASTED_S + 1)
    process.recover()
    assert process.events == ["dependency down", "dependency up"] * 2
    assert process.lines[-1]["for_s"] == LASTED_S + 1


def test_work_that_nobody_tries_any_more_does_not_keep_an_outage_open(process: Process) -> None:
    process.work[0].failed(AWAY)
    process.work[1].failed(AWAY)
    process.now_s += FORGOTTEN_S + 1
    process.work[1].well()
    assert process.events == ["dependency down", "dependency up"]


def test_work_that_ends_leaves_its_outage_to_who_meets_it_next(process: Process) -> None:
    process.work[0].failed(AWAY)
    process.work[0].ended()
    process.now_s += LEFT_S - 1
    process.work[1].failed(AWAY)
    process.now_s += REMIND_FIRST_S - LEFT_S
    process.work[1].well()
    assert process.events == ["dependency down", "dependency up"]
    assert process.lines[-1]["for_s"] == REMIND_FIRST_S - 1
