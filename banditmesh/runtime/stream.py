"""The consume loop: a member of a consumer group on one topic that hands each partition's records to a processor of its
own.

Who does what:

- A :class:`Source` (``kafka.consumer.KafkaSource``; in unit tests one in memory) fetches, pauses and seeks, and tells
  of rebalances.
- For each assigned partition the :class:`Stream` runs a *lane*: it opens a :class:`Processor`, asks it where to start,
  seeks there, and from then on hands it records, in order, each at least once and none before the start position. Lanes
  run beside each other.
- The processor alone decides what is done and where that is remembered: **the stream never commits an offset.**

Back-pressure is one exception, :class:`NotYet`: the lane keeps the records and offers them again later; a partition
whose lane holds enough is paused. What a processor raises otherwise closes it, and the partition is opened anew after a
pause, at the position that the new processor names; no record is ever skipped. :class:`Fenced` gives up all partitions
and joins the group again.

No await here is without a deadline: aiokafka 0.14 waits out an outage for as long as it lasts, and raises nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.metrics import StreamMetrics
from banditmesh.runtime.lane import Lane
from banditmesh.runtime.logging import get_logger
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


class Stream:
    """Runs lanes for whatever partitions the group gives this member. :meth:`run` is a background task; cancelling it
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
        self._lanes: dict[int, tuple[Lane, asyncio.Task[None]]] = {}
        self._joined = False
        self._rejoin = asyncio.Event()

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
                log.warning("stream joins again", stream=self.name, error=str(error), pause_s=pause_s)
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, self._options.most_pause_s)

    async def probe(self) -> None:
        """Raise Unavailable unless this member is in its group and all its partitions are being worked on; a health
        check's probe."""
        if not self._joined:
            raise Unavailable(f"{self.name}: has not joined its consumer group yet")
        failing = sorted(partition for partition, (lane, _) in self._lanes.items() if lane.failing)
        if failing:
            raise Unavailable(f"{self.name}: partitions {failing} fail and are tried again")

    def end_offset(self, partition: int) -> int | None:
        """The partition's end as last seen; None when it is not known."""
        return self._source.last_end(partition) if self._source is not None and partition in self._lanes else None

    async def _be_member(self) -> None:
        """One membership, until a processor was fenced."""
        self._rejoin.clear()
        source = self._source = self._new_source()
        try:
            await source.start(self._assigned, self._revoked)
            while not self._rejoin.is_set():
                try:
                    fetched = await source.fetch(self._options.poll_s)
                except OutOfRange as error:
                    for partition in error.partitions & self._lanes.keys():
                        self._lanes[partition][0].start_over()
                    continue
                for partition, records in fetched.items():
                    if partition in self._lanes:
                        self._lanes[partition][0].offer(records)
                self._steer(source)
        finally:
            self._joined = False
            await self._revoked()
            self._source = None
            await source.stop()

    def _steer(self, source: Source) -> None:
        for partition, (lane, _) in self._lanes.items():
            if lane.paused and lane.hungry:
                lane.paused = False
                source.resume(partition)
            elif not lane.paused and lane.full:
                lane.paused = True
                source.pause(partition)

    def _assigned(self, partitions: frozenset[int]) -> None:
        source = self._source
        assert source is not None
        self._joined = True
        self._metrics.partitions.set(len(partitions))
        for partition in partitions:
            lane = Lane(self.name, partition, source, self._open, self._options, self._clock, self._metrics)
            task = asyncio.create_task(lane.run(), name=f"{self.name} {partition}")
            task.add_done_callback(self._lane_ended)
            self._lanes[partition] = lane, task

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("stream gives its partitions up", stream=self.name, lane=task.get_name(), error=repr(error))
            self._rejoin.set()

    async def _revoked(self) -> None:
        lanes, self._lanes = self._lanes, {}
        self._metrics.partitions.set(0)
        if not lanes:
            return
        for lane, _ in lanes.values():
            lane.stop()
        tasks = [task for _, task in lanes.values()]
        _, late = await asyncio.wait(tasks, timeout=self._options.drain_s)
        for task in late:
            log.warning("call cut short: its partition was revoked", lane=task.get_name())
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=self._options.drain_s)
        for task in tasks:
            with suppress(Exception, asyncio.CancelledError):  # _lane_ended has logged it
                task.result() if task.done() else None
