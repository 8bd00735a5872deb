"""Supervision of background tasks."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import FailedPrecondition, PermissionDenied, Unavailable
from banditmesh.runtime.health import Check, Health
from banditmesh.runtime.lifecycle import BackgroundTasks, EndProcess, Restart
from banditmesh.runtime.metrics import ProcessMetrics
from banditmesh.runtime.snapshots import Superseded


class Process:
    """A supervisor with a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.registry = CollectorRegistry()
        metrics = ProcessMetrics(self.registry)
        self.health = Health(self.clock, metrics)
        self.ended_by: list[str] = []
        self.tasks = BackgroundTasks(self.clock, self.health, metrics, self.ended_by.append)

    def crashes(self) -> float | None:
        return self.registry.get_sample_value("banditmesh_task_crashes_total", {"task": "loop"})

    def up(self) -> float | None:
        return self.registry.get_sample_value("banditmesh_task_up", {"task": "loop"})


@pytest.fixture
async def process() -> Process:
    return Process()


class Flaky:
    """Crashes on each run until told to stay."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.stays = False

    def run_on(self, clock: ManualClock):  # type: ignore[no-untyped-def]
        async def run() -> None:
            self.starts.append(clock.monotonic_s())
            if self.stays:
                await asyncio.Event().wait()
            raise RuntimeError("crash")

        return run


async def test_a_crashed_task_restarts_with_a_growing_pause(process: Process) -> None:
    flaky = Flaky()
    process.tasks.add("loop", flaky.run_on(process.clock), on_crash=Restart(first_s=1, most_s=3, stable_s=5))
    process.tasks.start()
    await process.clock.advance(10)
    assert flaky.starts == [0, 1, 3, 6, 9]
    assert process.crashes() == 5
    assert process.up() == 0
    assert process.health.broken == {"task loop"}
    await process.tasks.stop(1)


async def test_a_task_that_runs_for_a_while_is_well_and_its_pause_starts_anew(process: Process) -> None:
    flaky, crash = Flaky(), asyncio.Event()

    async def run() -> None:
        flaky.starts.append(process.clock.monotonic_s())
        if len(flaky.starts) == 3:
            await crash.wait()
        raise RuntimeError("crash")

    process.tasks.add("loop", run, on_crash=Restart(first_s=1, most_s=60, stable_s=5))
    process.tasks.start()
    await process.clock.advance(3 + 4.9)
    assert process.health.broken == {"task loop"}
    await process.clock.advance(0.1)
    assert process.health.broken == frozenset()
    assert process.up() == 1
    crash.set()
    await process.clock.advance(1)
    assert flaky.starts == [0, 1, 3, 9]
    await process.tasks.stop(1)


async def test_a_task_that_waits_for_the_silence_of_what_it_crashed_by_is_not_well_yet(process: Process) -> None:
    """Its first command may take as long as it runs before it counts as well."""
    starts: list[float] = []

    async def run() -> None:
        starts.append(process.clock.monotonic_s())
        await process.clock.sleep(6 if "redis" in process.health.broken else 1000)
        raise Unavailable("Redis does not answer", dependency="redis")

    process.tasks.add("loop", run, on_crash=Restart(first_s=1, most_s=1, stable_s=5))
    await process.health.set_condition("redis", False)
    with capture_logs() as logs:
        process.tasks.start()
        await process.clock.advance(30)
        assert process.health.broken == {"redis", "task loop"}
        assert [line["event"] for line in logs] == ["dependency down"]
        await process.health.set_condition("redis", True)
        await process.clock.advance(20)
    assert process.health.broken == frozenset()
    assert len(starts) > 3
    assert [line["event"] for line in logs] == ["dependency down", "dependency up"]
    await process.tasks.stop(1)


async def test_a_task_that_waits_for_a_dependency_never_pauses_long(process: Process) -> None:
    starts: list[float] = []

    async def run() -> None:
        starts.append(process.clock.monotonic_s())
        raise Unavailable("Redis does not answer", dependency="redis")

    process.tasks.add("loop", run, on_crash=Restart(first_s=1, most_s=60, stable_s=5))
    process.tasks.start()
    await process.clock.advance(1 + 2 + 4 + 5 + 5 + 5)
    assert starts == [0, 1, 3, 7, 12, 17, 22]
    await process.tasks.stop(1)


async def test_a_check_that_has_failed_is_soon_repeated_however_seldom_it_is_made(process: Process) -> None:
    made: list[float] = []

    async def probe() -> None:
        made.append(process.clock.monotonic_s())
        if len(made) in (2, 3):
            raise Unavailable("Redis does not answer", dependency="redis")

    await process.health.start((), {"settings": Check("settings", probe, interval_s=60.0)})
    await process.clock.advance(60 + 1 + 1 + 60)
    assert made == [0, 60, 61, 62, 122]
    await process.health.stop()


async def test_a_crash_is_logged_with_its_traceback(process: Process) -> None:
    flaky = Flaky()
    process.tasks.add("loop", flaky.run_on(process.clock), on_crash=Restart())
    with capture_logs() as logs:
        process.tasks.start()
        await process.clock.wait_for_sleepers()
    (crash,) = [line for line in logs if line["event"] == "background task crashed"]
    assert crash["task"] == "loop"
    assert crash["exc_info"]
    await process.tasks.stop(1)


@pytest.mark.parametrize(
    "outage",
    [
        Unavailable("Redis does not answer"),
        PermissionDenied("s3://bucket: the token has expired"),
        FailedPrecondition("the topic is gone"),
        TimeoutError(),
        ConnectionResetError(104, "reset by peer"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_outage_is_one_line_without_a_traceback_however_long_it_is(
    process: Process, outage: Exception
) -> None:
    away = asyncio.Event()
    away.set()

    async def run() -> None:
        while not away.is_set():
            await process.clock.sleep(0.1)
        raise outage

    process.tasks.add("loop", run, on_crash=Restart(first_s=1, most_s=1, stable_s=5))
    with capture_logs() as logs:
        process.tasks.start()
        await process.clock.advance(20)
        away.clear()
        for _ in range(100):
            await process.clock.advance(0.1)
        away.set()
        for _ in range(20):
            await process.clock.advance(0.1)
    lines = [(line["log_level"], line["event"]) for line in logs]
    # What goes away again at once is the same outage still.
    assert lines == [("warning", "dependency down"), ("info", "dependency up")]
    assert not any("exc_info" in line for line in logs)
    assert logs[0]["reason"]
    assert process.up() == 0
    await process.tasks.stop(1)


@pytest.mark.parametrize("error", [Superseded("another one"), ExceptionGroup("", [Superseded("another one")])])
async def test_what_is_foreseen_and_ends_the_service_is_one_line(process: Process, error: Exception) -> None:
    async def run() -> None:
        raise error

    process.tasks.add("publish", run, on_crash=EndProcess())
    with capture_logs() as logs:
        process.tasks.start()
        await process.clock.advance(1)
    (line,) = logs
    assert (line["log_level"], line["event"]) == ("error", "background task ends the service")
    assert line["reason"] == "another one"
    await process.tasks.stop(1)


async def test_a_task_that_returns_by_itself_has_crashed(process: Process) -> None:
    async def run() -> None:
        return

    process.tasks.add("loop", run, on_crash=EndProcess())
    process.tasks.start()
    await process.clock.advance(0)
    assert process.ended_by == ["loop"]


async def test_a_one_shot_task_may_return(process: Process) -> None:
    async def run() -> None:
        return

    process.tasks.add("loop", run, on_crash=EndProcess(), one_shot=True)
    process.tasks.start()
    await process.clock.advance(0)
    assert process.ended_by == []
    assert process.health.broken == frozenset()


async def test_a_task_that_is_not_critical_leaves_health_alone(process: Process) -> None:
    flaky = Flaky()
    process.tasks.add("loop", flaky.run_on(process.clock), on_crash=Restart(), critical=False)
    process.tasks.start()
    await process.clock.wait_for_sleepers()
    assert process.crashes() == 1
    assert process.health.broken == frozenset()
    await process.tasks.stop(1)


async def test_a_stop_lets_a_task_clean_up_and_counts_no_crash(process: Process) -> None:
    cleaned = asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    process.tasks.add("loop", run, on_crash=EndProcess())
    process.tasks.start()
    await process.clock.advance(0)
    assert await process.tasks.stop(1)
    assert cleaned.is_set()
    assert process.crashes() == 0
    assert process.ended_by == []


async def test_a_task_that_does_not_stop_in_time_is_named(process: Process) -> None:
    let_go = asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await let_go.wait()

    process.tasks.add("loop", run, on_crash=EndProcess())
    process.tasks.start()
    await process.clock.advance(0)
    with capture_logs() as logs:
        assert not await process.tasks.stop(0.01)
    assert any(line.get("task") == "loop" and "in time" in line["event"] for line in logs)
    let_go.set()


async def test_a_task_registered_after_the_start_runs_at_once(process: Process) -> None:
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()
        await asyncio.Event().wait()

    process.tasks.start()
    process.tasks.add("loop", run, on_crash=EndProcess())
    await ran.wait()
    await process.tasks.stop(1)


async def test_a_cancellation_that_nobody_asked_for_is_a_crash(process: Process) -> None:
    calls = 0

    async def run() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    process.tasks.add("loop", run, on_crash=Restart(first_s=1, most_s=1, stable_s=5))
    process.tasks.start()
    await process.clock.wait_for_sleepers()
    assert process.crashes() == 1
    await process.clock.advance(1.0)
    assert calls == 2
    assert await process.tasks.stop(1.0)
