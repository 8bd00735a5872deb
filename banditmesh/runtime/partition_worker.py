"""One assigned partition of a stream: opened, fed, and opened anew after an error, until it is revoked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice

from banditmesh.runtime.cancellation import is_cancelled
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import FailedPrecondition, is_expected
from banditmesh.runtime.kafka.metrics import StreamMetrics
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.stream_contract import (
    Consumed,
    Fenced,
    NotYet,
    Open,
    Processor,
    Source,
    StartOver,
    StreamOptions,
)

log = get_logger(__name__)


class PartitionWorker:
    """One assigned partition."""

    def __init__(
        self,
        stream: str,
        partition: int,
        source: Source,
        open_processor: Open,
        options: StreamOptions,
        clock: Clock,
        metrics: StreamMetrics,
    ) -> None:
        self.partition = partition
        self._log = log.bind(stream=stream, partition=partition)
        self._work = outages.work(f"partition {partition} of {stream}", of=f"{stream} stream")
        self.failing: BaseException | None = None
        """Why the last attempt to open or to process failed; None: it did not."""
        self.paused = True
        self.taken = 0
        self.held: deque[Consumed] = deque()
        self._source = source
        self._open = open_processor
        self._options = options
        self._clock = clock
        self._metrics = metrics
        self._position: int | None = None
        """The next offset to take; None: not opened."""
        self._just_sought = False
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()
        self._restart = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether no more should be fetched."""
        return len(self.held) >= self._options.buffer

    @property
    def hungry(self) -> bool:
        """Whether a paused worker should be resumed."""
        return self._position is not None and len(self.held) <= self._options.buffer // 2

    def offer(self, records: Sequence[Consumed]) -> None:
        """Take records into the buffer; those that do not follow on what the worker has are left out.

        What was fetched before the seek belongs to no position yet, or is below it; should it be above, it is fetched
        once more. What is above then, and later, are the gaps that markers of transactions leave.
        """
        if self._position is None:
            self._metrics.stale.inc(len(records))
            return
        if self._just_sought and records:
            self._just_sought = False
            if records[0].offset > self._position:
                self._metrics.stale.inc(len(records))
                self._source.seek(self.partition, self._position)
                return
        for record in records:
            if record.offset < self._position:
                self._metrics.stale.inc()
                continue
            self.held.append(record)
            self._position = record.offset + 1
        self._arrived.set()

    def start_over(self) -> None:
        """Open the partition anew."""
        self._restart.set()
        self._arrived.set()

    def stop(self) -> None:
        """Finish the call that runs, and no other."""
        self._stopping.set()
        self._arrived.set()

    async def run(self) -> None:
        """Serve the partition until :meth:`stop`. Raises :class:`Fenced`; every other error is tried again, with
        pauses."""
        pause_s = self._options.first_pause_s
        while not self._stopping.is_set():
            taken_before = self.taken
            try:
                await self._serve()
            except Fenced:
                self._metrics.fenced.inc()
                raise
            except StartOver as reason:
                self._log.info("partition starts over", reason=str(reason))
                self._metrics.restarts.labels(reason="start_over").inc()
                continue
            except (Exception, asyncio.CancelledError) as error:  # no record is skipped, the partition is opened anew
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                self.failing = error
                self._metrics.restarts.labels(reason=type(error).__name__).inc()
                if is_expected(error):
                    self._work.failed(error)
                else:
                    self._log.exception("partition is opened anew", pause_s=pause_s)
                if self.taken > taken_before:
                    pause_s = self._options.first_pause_s
                await self._wait(self._stopping, pause_s)
                pause_s = min(2 * pause_s, self._options.most_pause_s)
            finally:
                if self._stopping.is_set():
                    self._work.ended()

    async def _serve(self) -> None:
        self._position = None
        self._restart.clear()
        processor: Processor | None = None
        try:
            async with asyncio.timeout(self._options.open_deadline_s):
                await self._ask()
                # The order counts: only after the old owner is fenced is the committed offset final.
                processor = await self._open(self.partition, self._source)
                start = await self._in_range(await processor.start_offset())
            self.held.clear()
            self._source.seek(self.partition, start)
            self._position, self._just_sought = start, True
            if self.failing is None:  # else it may fail again with each attempt
                self._log.info("partition opened", offset=start)
            await self._hand_over(processor)
        finally:
            self._position = None
            self.held.clear()
            self._source.pause(self.partition)
            self.paused = True
            if processor is not None:
                await processor.close()

    async def _in_range(self, start: int) -> int:
        beginning = await self._source.beginning(self.partition)
        if start < beginning:
            lost = beginning - start
            self._log.error(
                "records were deleted before they were read",
                partition=self.partition,
                wanted=start,
                beginning=beginning,
            )
            self._metrics.lost.inc(lost)
            return beginning
        end = await self._source.end(self.partition)
        if start > end:
            # A replica that has just become leader may not know yet how far it is; starting anywhere else would do work
            # twice.
            raise FailedPrecondition(
                f"partition {self.partition} ends at {end}, but the next record should be {start}",
                hint="if the topic was created anew, use a new kafka.topic_prefix",
            )
        return start

    async def _hand_over(self, processor: Processor) -> None:
        options = self._options
        tick_at = self._clock.monotonic_s() + options.tick_every_s
        retry_at = 0.0
        while not self._stopping.is_set() and not self._restart.is_set():
            now = self._clock.monotonic_s()
            if self.held and now >= retry_at:
                taken, retry_after_s = await self._process(processor)
                now = self._clock.monotonic_s()
                if taken:
                    tick_at = now + options.tick_every_s
                retry_at = now + retry_after_s
            elif now >= tick_at:
                async with asyncio.timeout(options.process_deadline_s):
                    await self._ask()
                    await processor.tick()
                self._is_well()
                tick_at = self._clock.monotonic_s() + options.tick_every_s
            elif self.held:
                # New records stand behind those that have to wait: their arrival changes nothing.
                await self._wait(self._stopping, min(retry_at, tick_at) - now)
            else:
                self._arrived.clear()
                await self._wait(self._arrived, tick_at - now)

    async def _process(self, processor: Processor) -> tuple[int, float]:
        """How many records were taken, and the seconds until the next may be offered."""
        batch = list(islice(self.held, self._options.batch))
        taken, retry_after_s = len(batch), 0.0
        try:
            async with asyncio.timeout(self._options.process_deadline_s):
                await self._ask()
                await processor.process(batch)
        except NotYet as not_yet:
            taken, retry_after_s = not_yet.taken, not_yet.retry_after_s
        for _ in range(taken):
            self.held.popleft()
        self.taken += taken
        self._metrics.records.inc(taken)
        self._is_well()
        return taken, retry_after_s

    def _is_well(self) -> None:
        self.failing = None
        self._work.well()

    async def _ask(self) -> None:
        if self._options.may_work is not None:
            await self._options.may_work()

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when the event is set or the time is over, by the clock that was passed in."""
        if event.is_set():
            return
        waiting = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._clock.sleep(max(seconds, 0.0)))]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
