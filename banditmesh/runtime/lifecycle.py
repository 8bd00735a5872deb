"""Background tasks of a service under supervision, and what is done, in which order, when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass

from banditmesh.runtime.cancellation import is_cancelled
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import dependency_of, in_one_line, is_expected
from banditmesh.runtime.health import Health
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.metrics import ProcessMetrics
from banditmesh.runtime.outages import outages

log = get_logger(__name__)

Run = Callable[[], Awaitable[None]]
MOST_AWAY_S = 5.0
"""The longest pause of a task that waits for a dependency: nobody gains by a task that sleeps on when it is back."""
LOOK_EVERY_S = 1.0
"""At the health of a dependency that a task waits for."""


@dataclass(frozen=True)
class Restart:
    """Start a crashed task again after ``first_s``, doubling up to ``most_s`` (up to :data:`MOST_AWAY_S` while a
    dependency is away); running for ``stable_s`` makes it well
    again, unless the dependency that it crashed by is not well by then: it may wait for that one's silence to end.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    stable_s: float = 5.0


@dataclass(frozen=True)
class EndProcess:
    """Stop the service and exit with 1: for a task whose state cannot be trusted after a crash. Kubernetes starts a
    fresh one.
    """


OnCrash = Restart | EndProcess
RESTART = Restart()


@dataclass(frozen=True)
class _StopHook:
    name: str
    run: Run
    deadline_s: float


class StopHooks:
    """What to do on stop, last registered first: what was opened last may still need what was opened before it."""

    def __init__(self) -> None:
        self._hooks: list[_StopHook] = []

    def add(self, name: str, run: Run, *, deadline_s: float = 10.0) -> None:
        """``run`` is awaited for at most ``deadline_s``; that it fails or is late is logged and holds no other hook
        up.
        """
        self._hooks.append(_StopHook(name, run, deadline_s))

    async def run(self) -> bool:
        """Run all hooks once; False when one of them failed or was late."""
        clean = True
        while self._hooks:
            hook = self._hooks.pop()
            try:
                async with asyncio.timeout(hook.deadline_s):
                    await hook.run()
            except TimeoutError:
                clean = False
                log.error("stop hook was late", hook=hook.name, deadline_s=hook.deadline_s)
            except Exception as error:  # the other hooks must still run
                clean = False
                if is_expected(error):
                    log.error("stop hook failed", hook=hook.name, reason=in_one_line(error))
                else:
                    log.exception("stop hook failed", hook=hook.name)
        return clean


class BackgroundTasks:
    """Consume loops, watchers, schedules: coroutines that should run as long as the service does.

    A task that raises, or returns though it is not a ``one_shot``, has crashed: logged with its traceback (in one line
    when what it raised is expected: a dependency is away, another process has taken over), counted, and the service is
    NOT_SERVING until it is well again (unless it is not ``critical``).
    """

    def __init__(
        self, clock: Clock, health: Health, metrics: ProcessMetrics, end_process: Callable[[str], None]
    ) -> None:
        """``end_process`` is told the task's name when an EndProcess task has crashed."""
        self._clock = clock
        self._health = health
        self._metrics = metrics
        self._end_process = end_process
        self._waiting: list[tuple[str, Callable[[], Coroutine[None, None, None]]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._started = False

    def add(self, name: str, run: Run, *, on_crash: OnCrash, critical: bool = True, one_shot: bool = False) -> None:
        """Register a task, before or after :meth:`start`; ``run`` is called anew for each restart."""

        async def supervised() -> None:
            await self._supervise(name, run, on_crash, critical, one_shot)

        self._waiting.append((name, supervised))
        if self._started:
            self.start()

    def start(self) -> None:
        """Start what is registered."""
        self._started = True
        for name, supervised in self._waiting:
            self._tasks.append(asyncio.create_task(supervised(), name=name))
        self._waiting.clear()

    async def stop(self, deadline_s: float) -> bool:
        """Cancel all and wait for their clean-up, at most ``deadline_s``; False when one was late."""
        self._waiting.clear()
        if not self._tasks:
            return True
        for task in self._tasks:
            task.cancel()
        ended, late = await asyncio.wait(self._tasks, timeout=deadline_s)
        for task in filter(asyncio.Task.cancelled, ended):
            # A task that nobody asks how it ended keeps the cancellation, which knows the frames that it went through,
            # which know the task by their time limits: a cycle, with everything that the task worked with.
            with suppress(asyncio.CancelledError):
                task.result()
        for task in late:
            log.error("background task did not stop in time", task=task.get_name(), deadline_s=deadline_s)
        self._tasks.clear()
        return not late

    async def _supervise(self, name: str, run: Run, on_crash: OnCrash, critical: bool, one_shot: bool) -> None:
        up = self._metrics.task_up.labels(task=name)
        crashes = self._metrics.task_crashes.labels(task=name)
        pause_s = on_crash.first_s if isinstance(on_crash, Restart) else 0.0
        up.set(1)
        crash: BaseException | None = None
        while True:
            well = asyncio.create_task(self._well_again(name, on_crash, crash)) if crash is not None else None
            try:
                await run()
                if one_shot:
                    log.info("background task done", task=name)
                    return
                raise RuntimeError(f"the background task {name!r} returned, and should run until the service stops")
            except (Exception, asyncio.CancelledError) as error:  # whatever it was: the task no longer runs
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    outages.ended(_work(name))
                    raise
                crashes.inc()
                up.set(0)
                crash = error
                if not is_expected(error):
                    log.exception("background task crashed", task=name, policy=type(on_crash).__name__)
                elif isinstance(on_crash, EndProcess):
                    log.error("background task ends the service", task=name, reason=in_one_line(error))
                else:
                    outages.failed(_work(name), error)
            finally:
                recovered = well is not None and well.done()
                if well is not None:
                    well.cancel()
            if critical:
                await self._health.set_condition(f"task {name}", False)
            if isinstance(on_crash, EndProcess):
                self._end_process(name)
                return
            if recovered:
                pause_s = on_crash.first_s
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, on_crash.most_s if not is_expected(crash) else min(on_crash.most_s, MOST_AWAY_S))

    async def _well_again(self, name: str, on_crash: OnCrash, crash: BaseException) -> None:
        """Declare a restarted task well once it has run for a while: one that crashes at once must not flap."""
        if isinstance(on_crash, Restart):
            await self._clock.sleep(on_crash.stable_s)
        while dependency_of(crash) in self._health.broken:
            await self._clock.sleep(LOOK_EVERY_S)
        self._metrics.task_up.labels(task=name).set(1)
        await self._health.set_condition(f"task {name}", True)
        outages.well(_work(name))
        if not is_expected(crash):
            log.info("background task runs again", task=name)


def _work(task: str) -> str:
    return f"background task {task}"
