"""The consume loop: a member of a consumer group on one topic that hands each partition's records to a processor of its
own.

Who does what:

- A :class:`Source` (``kafka.consumer.KafkaSource``; in unit tests one in memory) fetches, pauses and seeks, and tells
  of rebalances.
- For each assigned partition the :class:`Stream` runs a :class:`PartitionWorker`: it opens a :class:`Processor`, asks
  it where to start, seeks there, and from then on hands it records, in order, each at least once and none before the
  start position. Workers run beside each other.
- The processor alone decides what is done and where that is remembered: **the stream never commits an offset.**

Back-pressure is one exception, :class:`NotYet`: the worker keeps the records and offers them again later; a partition
whose worker holds enough is paused. What a processor raises otherwise closes it, and the partition is opened anew after
a pause, at the position that the new processor names; no record is ever skipped. :class:`Fenced` gives up all
partitions and joins the group again.

No await here is without a deadline: aiokafka 0.14 waits out an outage for as long as it lasts, and raises nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Unavailable, dependency_of, in_one_line
from banditmesh.runtime.kafka.metrics import StreamMetrics
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.partition_worker import PartitionWorker
from banditmesh.runtime.stream_contract import (
    Consumed,
    Fenced,
    NotYet,
    Offsets,
    Open,
    OutOfRange,
    Processor,
    Source,
    StartOver,
    StreamOptions,
)

__all__ = [
    "Consumed",
    "Fenced",
    "NotYet",
    "Offsets",
    "Open",
    "OutOfRange",
    "Processor",
    "Source",
    "StartOver",
    "Stream",
    "StreamOptions",
]

log = get_logger(__name__)

WELL_AFTER_S = 2.0


class Stream:
    """Runs workers for whatever partitions the group gives this member. :meth:`run` is a background task; cancelling it
    drains."""

    def __init__(
        self,
        name: str,
        new_source: Callable[[], Source],
        open_processor: Open,
        *,
        options: StreamOptions,
        clock: Clock,
        metrics: StreamMetrics,
    ) -> None:
        """``new_source`` is called for each membership."""
        self.name = name
        self._new_source = new_source
        self._open = open_processor
        self._options = options
        self._clock = clock
        self._metrics = metrics
        self._source: Source | None = None
        self._workers: dict[int, tuple[PartitionWorker, asyncio.Task[None]]] = {}
        self._joined = False
        self._joined_at_s = 0.0
        self._failure: Unavailable | None = None
        """Why the last membership ended, until one goes well."""
        self._rejoin = asyncio.Event()
        self._work = outages.work(f"membership of {name}")

    async def run(self) -> None:
        """Consume until cancelled; then let running calls finish within ``drain_s``, close all processors, leave the
        group.

        Brokers that are away are waited for; :meth:`probe` says so meanwhile. Raises only what is a bug.
        """
        pause_s = self._options.first_pause_s
        while True:
            try:
                await self._be_member()
                pause_s = self._options.first_pause_s
            except Unavailable as error:
                self._metrics.restarts.labels(reason="membership").inc()
                self._work.failed(error)
                self._failure = error
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, self._options.most_pause_s)

    async def probe(self) -> None:
        """Raise Unavailable unless this member is in its group and all its partitions are being worked on; a health
        check's probe."""
        if not self._joined:
            reason = f": {in_one_line(self._failure)}" if self._failure else ""
            raise Unavailable(f"{self.name}: has not joined its consumer group yet{reason}", dependency="kafka")
        failing = sorted(partition for partition, (worker, _) in self._workers.items() if worker.failing)
        if failing:
            why = next(filter(None, (worker.failing for worker, _ in self._workers.values())))
            raise Unavailable(
                f"{self.name}: partitions {failing} fail and are tried again: {in_one_line(why)}",
                dependency=dependency_of(why),
            )

    def end_offset(self, partition: int) -> int | None:
        """The partition's end as last seen; None when it is not known."""
        return self._source.last_end(partition) if self._source is not None and partition in self._workers else None

    async def _be_member(self) -> None:
        """One membership, until a processor was fenced."""
        self._rejoin.clear()
        source = self._source = self._new_source()
        try:
            await source.start(partial(self._assigned, source), self._revoked)
            while not self._rejoin.is_set():
                try:
                    fetched = await source.fetch(self._options.poll_s)
                except OutOfRange as error:
                    for partition in error.partitions & self._workers.keys():
                        self._workers[partition][0].start_over()
                    continue
                self._see_that_it_goes_well(bool(fetched))
                for partition, records in fetched.items():
                    if partition in self._workers:
                        self._workers[partition][0].offer(records)
                self._steer(source)
        finally:
            self._joined = False
            await self._revoked()
            self._source = None
            await source.stop()

    def _see_that_it_goes_well(self, fetched: bool) -> None:
        """A group may take us whose topic we may not read: only what was read, or a while without a refusal, says that
        all is well."""
        if self._failure is None or not self._joined:
            return
        if fetched or self._clock.monotonic_s() - self._joined_at_s > WELL_AFTER_S:
            self._failure = None
            self._work.well()

    def _steer(self, source: Source) -> None:
        for partition, (worker, _) in self._workers.items():
            if worker.paused and worker.hungry:
                worker.paused = False
                source.resume(partition)
            elif not worker.paused and worker.full:
                worker.paused = True
                source.pause(partition)

    def _assigned(self, source: Source, partitions: frozenset[int]) -> None:
        if source is not self._source:  # of a membership that was given up while it was joining
            return
        self._joined, self._joined_at_s = True, self._clock.monotonic_s()
        self._metrics.partitions.set(len(partitions))
        for partition in partitions:
            worker = PartitionWorker(
                self.name, partition, source, self._open, self._options, self._clock, self._metrics
            )
            task = asyncio.create_task(worker.run(), name=f"{self.name} {partition}")
            task.add_done_callback(self._worker_ended)
            worker.failing = self._failure
            self._workers[partition] = worker, task

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        working = any(each is task for _, each in self._workers.values())
        if error is not None and (working or not task.cancelled()):
            log.warning("stream gives its partitions up", stream=self.name, worker=task.get_name(), error=repr(error))
            self._rejoin.set()

    async def _revoked(self) -> None:
        workers, self._workers = self._workers, {}
        self._metrics.partitions.set(0)
        if not workers:
            return
        for worker, _ in workers.values():
            worker.stop()
        tasks = [task for _, task in workers.values()]
        _, late = await asyncio.wait(tasks, timeout=self._options.drain_s)
        for task in late:
            task.cancel()
        if late:
            cut = sorted(task.get_name() for task in late)
            log.warning("calls cut short: their partitions were revoked", workers=cut, drain_s=self._options.drain_s)
            await asyncio.wait(late, timeout=self._options.drain_s)
        for task in tasks:
            with suppress(Exception, asyncio.CancelledError):  # _worker_ended has logged it
                task.result() if task.done() else None
