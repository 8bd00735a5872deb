"""The loop with which each importer looks for jobs: new ones, and those whose importer has died."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from functools import partial
from typing import Any

from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.memory import give_back
from banditmesh.runtime.outages import outages
from services.importer.failure import Failure
from services.importer.importing import ImportDependencies, ImportRun
from services.importer.job import State
from services.importer.lease import Lease, LeaseLost, Leases

log = get_logger(__name__)

POLL_S = 1.0
"""How often to look for what other importers were told, or have left."""
RELEASE_ATTEMPTS = 5
MOST_STALLED = 10
"""A job that was taken up so often in a row without getting anywhere kills its importers; it fails."""


class Worker:
    """Claims jobs and runs them, a few at a time: at most one a source, and at most half of them for one service, so
    that a service whose files or provider hang does not hold the others.
    """

    def __init__(self, leases: Leases, deps: ImportDependencies, *, jobs_at_once: int, handover_s: float) -> None:
        self._leases = leases
        self._deps = deps
        self._jobs_at_once = jobs_at_once
        self._of_one_service = (jobs_at_once + 1) // 2
        self._handover_s = handover_s
        self._running: dict[str, asyncio.Task[None]] = {}
        self._busy: Counter[str] = Counter()

    async def run(self) -> None:
        """Work until cancelled; then the jobs at hand stop at their last checkpoint and their leases are given back.

        While Redis is away it looks again and again: what waits for the task to be started anew hears of its return
        late, and the jobs at hand may well get through.
        """
        work = outages.work("import jobs")
        try:
            while True:
                signal = self._deps.wake_up.next_wake_up()
                try:
                    await self._claim()
                    work.well()
                except MeshError as error:
                    work.failed(error)
                await self._deps.wake_up.wait(signal, POLL_S)
        finally:
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _claim(self) -> None:
        """Start the oldest job of each source that nobody works on."""
        if len(self._running) >= self._jobs_at_once:
            return
        tried: set[str] = set()
        for listed in await self._deps.jobs.unended():
            source, service = listed.job.source, listed.job.service
            if source in self._running or source in tried or self._busy[service] >= self._of_one_service:
                continue
            if len(self._running) >= self._jobs_at_once:
                return
            tried.add(source)
            if lease := await self._leases.acquire(source):
                task = asyncio.create_task(self._work(lease), name=f"import into {source}")
                self._running[source] = task
                self._busy[service] += 1
                task.add_done_callback(partial(self._ended, source, service))

    def _ended(self, source: str, service: str, _task: asyncio.Task[None]) -> None:
        del self._running[source]
        self._busy[service] -= 1
        self._deps.wake_up.wake_all()

    async def _work(self, lease: Lease) -> None:
        """Run the oldest job of the lease's source; survives whatever goes wrong with it."""
        handover_s = 0.0
        work = outages.work(f"import into {lease.source}")
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(lease.keep())
                handover_s = await self._run_oldest(lease)
                keeping.cancel()
            work.well()
        except* LeaseLost as lost:
            self._deps.metrics.leases_lost.inc()
            log.warning("import given up: the lease is lost", source=lease.source, error=str(lost.exceptions[0]))
        except* MeshError as errors:
            work.failed(errors)
        finally:
            await self._release(lease, handover_s)

    async def _run_oldest(self, lease: Lease) -> float:
        """Run a job; return how long the lease is to be kept afterwards."""
        # Read again under the lease: what was listed may have ended since.
        job = next(
            (listed.job for listed in await self._deps.jobs.unended() if listed.job.source == lease.source), None
        )
        if job is None:
            return 0.0
        run = ImportRun(job, lease, self._leases.owner, self._deps)
        metrics = self._deps.metrics
        began_s = self._deps.clock.monotonic_s()
        with metrics.jobs_running.track_inprogress():
            try:
                await run.begin()
                if run.job.stalled > MOST_STALLED:
                    await run.fail(
                        Failure(
                            "gave_up",
                            f"taken up {MOST_STALLED} times in a row without getting on; see the importers' logs",
                        )
                    )
                else:
                    await run.run()
            except asyncio.CancelledError:
                await _to_its_end(run.leave())
                raise
            except (MeshError, LeaseLost):
                raise
            except (
                Exception
            ) as error:  # a bug, or a library's surprise: it would come again, so the job must not be taken up for ever
                log.exception("import crashed", job=job.id)
                await run.fail(
                    Failure("internal", f"{type(error).__name__}: {error}; the importer's log has the traceback")
                )
        metrics.job_seconds.labels(kind=job.kind.value).observe(self._deps.clock.monotonic_s() - began_s)
        await asyncio.to_thread(give_back)  # the rows of a job are megabytes, and the next one may be tomorrow's
        return self._handover_s if run.job.state is State.SUCCEEDED else 0.0

    async def _release(self, lease: Lease, after_s: float) -> None:
        """Give the lease back; more than one attempt, since after a restart of Redis the pooled connections are
        dead.
        """
        work = outages.work(f"lease of {lease.source}")
        for _ in range(RELEASE_ATTEMPTS):
            try:
                await _to_its_end(lease.release(after_s))
                work.well()
                return
            except MeshError as error:
                work.failed(error)
        work.ended()  # it runs out by itself


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await something that a cancellation must not cut short; the cancellation takes effect afterwards."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
