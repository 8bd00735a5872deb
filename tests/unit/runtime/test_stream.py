"""The consume loop on a broker in memory, its time moved by hand where time matters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from banditmesh.runtime.clock import Clock, ManualClock, SystemClock
from banditmesh.runtime.errors import FailedPrecondition, Unavailable
from banditmesh.runtime.kafka.metrics import StreamMetrics, StreamMetricsFamily
from banditmesh.runtime.stream import Consumed, Fenced, NotYet, Offsets, StartOver, Stream, StreamOptions
from tests.support.memory_broker import MemorySource, MemoryTopic

GROUP = "group"
FAST = StreamOptions(tick_every_s=60.0, first_pause_s=0.001, most_pause_s=0.01, poll_s=0.01, drain_s=1.0)


class Recorder:
    """Opens processors that note everything that happens to them, and fail as told."""

    def __init__(self, topic: MemoryTopic) -> None:
        self.topic = topic
        self.events: list[str] = []
        self.taken: dict[int, list[bytes]] = {}
        self.failures: list[BaseException] = []
        """Raised by the next ``process`` calls, one each."""
        self.on_process: Callable[[int], object] | None = None
        self.blocked: asyncio.Event | None = None
        self.opening: asyncio.Event | None = None
        self._changed = asyncio.Event()

    async def open(self, partition: int, offsets: Offsets) -> RecordingProcessor:
        self.note(f"open {partition}")
        if self.opening is not None:
            await self.opening.wait()
        return RecordingProcessor(self, partition, offsets)

    def note(self, event: str) -> None:
        self.events.append(event)
        self._changed.set()

    def all_taken(self) -> list[bytes]:
        return sorted(value for values in self.taken.values() for value in values)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the processors to come to it."""
        async with asyncio.timeout(5):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class RecordingProcessor:
    def __init__(self, recorder: Recorder, partition: int, offsets: Offsets) -> None:
        self._recorder = recorder
        self._partition = partition
        self._offsets = offsets

    async def start_offset(self) -> int:
        return await self._offsets.committed(self._partition) or 0

    async def process(self, records: Sequence[Consumed]) -> None:
        recorder = self._recorder
        recorder.note(f"process {self._partition}")
        if recorder.blocked is not None:
            await recorder.blocked.wait()
        error = recorder.failures.pop(0) if recorder.failures else None
        taken = records[: error.taken] if isinstance(error, NotYet) else [] if error else records
        recorder.taken.setdefault(self._partition, []).extend(record.value for record in taken)
        if taken:
            recorder.topic.committed[GROUP, self._partition] = taken[-1].offset + 1
        recorder.note("processed")
        if error is not None:
            raise error

    async def tick(self) -> None:
        self._recorder.note(f"tick {self._partition}")

    async def close(self) -> None:
        self._recorder.note(f"close {self._partition}")


@pytest.fixture
async def topic() -> MemoryTopic:
    return MemoryTopic(partitions=1)


@pytest.fixture
async def recorder(topic: MemoryTopic) -> Recorder:
    return Recorder(topic)


@pytest.fixture
def metrics() -> StreamMetrics:
    return StreamMetricsFamily(CollectorRegistry()).stream("test")


@asynccontextmanager
async def running(
    recorder: Recorder, metrics: StreamMetrics, options: StreamOptions = FAST, clock: Clock | None = None
) -> AsyncIterator[Stream]:
    stream = Stream(
        "test",
        lambda: recorder.topic.source(GROUP),
        recorder.open,
        options=options,
        clock=clock or SystemClock(),
        metrics=metrics,
    )
    task = asyncio.create_task(stream.run())
    try:
        yield stream
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=5)


async def test_records_come_in_order_from_the_processors_start_offset(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    for i in range(5):
        await topic.append(0, b"%d" % i)
    topic.committed[GROUP, 0] = 2
    async with running(recorder, metrics):
        await recorder.until(lambda: recorder.all_taken() == [b"2", b"3", b"4"])
        await topic.append(0, b"5", gap=1)
        await recorder.until(lambda: recorder.taken[0] == [b"2", b"3", b"4", b"5"])
    assert recorder.events[:2] == ["open 0", "process 0"]


async def test_records_fetched_before_the_seek_are_left_out(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    await topic.append(0, b"old")
    await topic.append(0, b"new")
    topic.committed[GROUP, 0] = 1
    source = topic.source(GROUP)
    source.begins_paused = False
    recorder.opening = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, recorder.opening.set)  # after the first fetch
    stream = Stream("test", lambda: source, recorder.open, options=FAST, clock=SystemClock(), metrics=metrics)
    task = asyncio.create_task(stream.run())
    await recorder.until(lambda: bool(recorder.taken))
    task.cancel()
    await asyncio.wait([task])
    assert recorder.taken == {0: [b"new"]}
    assert metrics.stale._value.get() == 1


async def test_records_above_the_position_that_was_sought_are_fetched_again_and_then_believed(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    await topic.append(0, b"0", gap=3)
    async with running(recorder, metrics):
        await recorder.until(lambda: recorder.taken == {0: [b"0"]})
    assert metrics.stale._value.get() == 1


async def test_not_yet_keeps_the_records_and_offers_the_rest_again_after_the_delay(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    clock = ManualClock()
    recorder.failures = [NotYet(10.0, taken=1)]
    for i in range(3):
        await topic.append(0, b"%d" % i)
    async with running(recorder, metrics, clock=clock):
        await recorder.until(lambda: recorder.taken == {0: [b"0"]})
        await clock.advance(9.0)
        await topic.append(0, b"3")
        await clock.advance(0.9)
        assert recorder.taken == {0: [b"0"]}
        await clock.advance(0.2)
        await recorder.until(lambda: recorder.taken == {0: [b"0", b"1", b"2", b"3"]})
    assert recorder.events.count("open 0") == 1


async def test_a_worker_that_holds_enough_is_paused_until_it_holds_half(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    sources = [topic.source(GROUP)]
    options = StreamOptions(tick_every_s=60.0, batch=2, buffer=4, poll_s=0.01)
    recorder.blocked = asyncio.Event()
    for i in range(4):
        await topic.append(0, b"%d" % i)
    stream = Stream("test", lambda: sources[0], recorder.open, options=options, clock=SystemClock(), metrics=metrics)
    task = asyncio.create_task(stream.run())
    await recorder.until(lambda: "process 0" in recorder.events)
    await topic.appended(0.1)
    assert sources[0].paused == {0}
    await topic.append(0, b"4")
    recorder.blocked.set()
    await recorder.until(lambda: len(recorder.all_taken()) == 5)
    assert not sources[0].paused
    task.cancel()
    await asyncio.wait([task])


async def test_after_an_error_the_partition_is_opened_anew_and_nothing_is_skipped(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    recorder.failures = [ValueError("a bug"), Unavailable("Redis is away")]
    await topic.append(0, b"0")
    async with running(recorder, metrics) as stream:
        await recorder.until(lambda: recorder.taken == {0: [b"0"]})
        await stream.probe()
    assert [event for event in recorder.events if event != "processed"] == ["open 0", "process 0", "close 0"] * 3


async def test_while_it_may_not_work_no_record_is_taken_and_none_is_lost(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    refused = [False]

    async def may_work() -> None:
        recorder.note("refused" if refused[0] else "allowed")
        if refused[0]:
            raise FailedPrecondition("Redis evicts")

    await topic.append(0, b"0")
    async with running(recorder, metrics, replace(FAST, may_work=may_work)):
        await recorder.until(lambda: recorder.all_taken() == [b"0"])
        refused[0] = True
        await topic.append(0, b"1")
        await recorder.until(lambda: recorder.events.count("refused") >= 3)
        assert recorder.all_taken() == [b"0"]
        refused[0] = False
        await recorder.until(lambda: recorder.all_taken() == [b"0", b"1"])


async def test_a_cancellation_that_nobody_asked_for_is_an_error_like_any_other(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    """A client that is stopped during an outage may raise it; the partition would be nobody's, and nobody would say
    so."""
    recorder.failures = [asyncio.CancelledError()]
    await topic.append(0, b"0")
    async with running(recorder, metrics):
        await recorder.until(lambda: recorder.taken == {0: [b"0"]})
    assert metrics.restarts.labels(reason="CancelledError")._value.get() == 1


async def test_while_a_partition_fails_the_probe_says_so_and_why(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    clock = ManualClock()
    recorder.failures = [Unavailable("Redis is away", dependency="redis")]
    await topic.append(0, b"0")
    async with running(recorder, metrics, clock=clock) as stream:
        with pytest.raises(Unavailable, match="has not joined"):
            await stream.probe()
        await recorder.until(lambda: "close 0" in recorder.events)
        await clock.wait_for_sleepers(1)
        with pytest.raises(Unavailable, match=r"partitions \[0\] fail .*: Redis is away$") as failing:
            await stream.probe()
        assert failing.value.dependency == "redis"
        await clock.advance(1.0)
        await recorder.until(lambda: recorder.taken == {0: [b"0"]})
        await stream.probe()


async def test_a_topic_that_may_not_be_read_is_one_outage_until_something_was_read(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    """The group takes us each time; that is not the end of it."""
    refusals = 3
    refused = Unavailable("this user lacks the right Read", dependency="kafka")
    await topic.append(0, b"0")
    own_source = topic.source

    def source(group: str) -> MemorySource:
        made = own_source(group)
        fetch = made.fetch

        async def refusing(timeout_s: float) -> Mapping[int, Sequence[Consumed]]:
            nonlocal refusals
            if refusals and not made.paused:  # asked for what was assigned
                refusals -= 1
                raise refused
            return await fetch(timeout_s)

        made.fetch = refusing  # type: ignore[method-assign]
        return made

    topic.source = source  # type: ignore[method-assign]
    with capture_logs() as logs:
        async with running(recorder, metrics) as stream:
            await recorder.until(lambda: recorder.taken == {0: [b"0"]})
            await stream.probe()
    said = [line["event"] for line in logs if line["event"].startswith("dependency")]
    assert said == ["dependency down", "dependency up"]
    assert [line["event"] for line in logs].count("partition opened") == 1


async def test_who_has_not_joined_yet_says_why(topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics) -> None:
    async with running(recorder, metrics, clock=(clock := ManualClock())) as stream:
        topic.away = True
        await clock.wait_for_sleepers(1)
        with pytest.raises(Unavailable, match=r"has not joined its consumer group yet: .+"):
            await stream.probe()


async def test_start_over_asks_for_the_position_again_without_a_pause(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    recorder.failures = [StartOver("Redis was emptied")]
    await topic.append(0, b"0")
    async with running(recorder, metrics, clock=ManualClock()):
        await recorder.until(lambda: recorder.taken == {0: [b"0"]})
    assert recorder.events.count("open 0") == 2


async def test_a_fenced_processor_makes_the_stream_leave_the_group_and_join_again(
    recorder: Recorder, metrics: StreamMetrics
) -> None:
    recorder.topic = topic = MemoryTopic(partitions=2)
    recorder.failures = [Fenced("another owner")]
    await topic.append(0, b"0")
    async with running(recorder, metrics):
        await recorder.until(lambda: recorder.taken == {0: [b"0"]})
    assert recorder.events.count("close 1") == 2  # the other partition was given up as well
    assert metrics.fenced._value.get() == 1


async def test_ticks_come_only_while_nothing_is_taken(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    clock = ManualClock()
    async with running(recorder, metrics, StreamOptions(tick_every_s=1.0, poll_s=0.01), clock):
        await recorder.until(lambda: "open 0" in recorder.events)
        await clock.wait_for_sleepers(1)
        await clock.advance(0.9)
        await topic.append(0, b"0")
        await recorder.until(lambda: recorder.taken == {0: [b"0"]})
        await clock.wait_for_sleepers(1)
        await clock.advance(0.9)
        assert "tick 0" not in recorder.events
        await clock.advance(0.2)
        await recorder.until(lambda: "tick 0" in recorder.events)


async def test_ticks_come_while_records_have_to_wait(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    clock = ManualClock()
    recorder.failures = [NotYet(100.0)]
    await topic.append(0, b"0")
    async with running(recorder, metrics, StreamOptions(tick_every_s=1.0, poll_s=0.01), clock):
        await recorder.until(lambda: "processed" in recorder.events)
        await clock.wait_for_sleepers(1)
        await clock.advance(3.5)
        assert recorder.events.count("tick 0") == 3
        assert recorder.taken == {0: []}


async def test_a_stop_lets_the_running_call_finish_and_closes_the_processor(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    recorder.blocked = asyncio.Event()
    await topic.append(0, b"0")
    async with running(recorder, metrics):
        await recorder.until(lambda: "process 0" in recorder.events)
        asyncio.get_running_loop().call_later(0.05, recorder.blocked.set)
    assert recorder.taken == {0: [b"0"]}
    assert recorder.events[-1] == "close 0"


async def test_a_call_that_does_not_finish_in_time_is_cut_short_and_its_processor_closed(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    recorder.blocked = asyncio.Event()
    await topic.append(0, b"0")
    async with running(recorder, metrics, StreamOptions(drain_s=0.05, poll_s=0.01)):
        await recorder.until(lambda: "process 0" in recorder.events)
    assert recorder.taken == {}
    assert recorder.events[-1] == "close 0"


async def test_calls_that_do_not_finish_in_time_are_one_line(metrics: StreamMetrics) -> None:
    recorder = Recorder(MemoryTopic(partitions=3))
    recorder.blocked = asyncio.Event()
    for partition in range(3):
        await recorder.topic.append(partition, b"0")
    with capture_logs() as logs:
        async with running(recorder, metrics, StreamOptions(drain_s=0.05, poll_s=0.01)):
            await recorder.until(lambda: sum(each.startswith("process") for each in recorder.events) == 3)
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert line["workers"] == ["test 0", "test 1", "test 2"]


async def test_partitions_that_fail_again_and_again_are_one_outage_of_what_they_need(metrics: StreamMetrics) -> None:
    recorder = Recorder(MemoryTopic(partitions=3))
    recorder.failures = [Unavailable("Redis at r:1 does not answer", dependency="redis") for _ in range(30)]
    with capture_logs() as logs:
        async with running(recorder, metrics):
            for partition in range(3):
                await recorder.topic.append(partition, b"0")
            await recorder.until(lambda: recorder.all_taken() == [b"0"] * 3)
    told = [(line["event"], line["dependency"]) for line in logs if line["event"].startswith("dependency")]
    assert told == [("dependency down", "redis"), ("dependency up", "redis")]
    assert not [line for line in logs if line["event"] == "partition is opened anew"]


async def test_records_that_retention_deleted_are_counted_and_the_rest_is_read(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    for i in range(5):
        await topic.append(0, b"%d" % i)
    topic.delete_before(0, 3)
    topic.committed[GROUP, 0] = 1
    async with running(recorder, metrics):
        await recorder.until(lambda: recorder.taken == {0: [b"3", b"4"]})
    assert metrics.lost._value.get() == 2


async def test_a_start_beyond_the_end_is_never_turned_into_another_one(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    await topic.append(0, b"0")
    topic.committed[GROUP, 0] = 7
    async with running(recorder, metrics) as stream:
        await recorder.until(lambda: recorder.events.count("close 0") >= 2)
        with pytest.raises(Unavailable):
            await stream.probe()
    assert recorder.taken == {}


async def test_a_broker_that_is_away_is_waited_for(
    topic: MemoryTopic, recorder: Recorder, metrics: StreamMetrics
) -> None:
    topic.away = True
    await topic.append(0, b"0")
    clock = ManualClock()
    async with running(recorder, metrics, clock=clock) as stream:
        await clock.wait_for_sleepers(1)
        with pytest.raises(Unavailable):
            await stream.probe()
        topic.away = False
        await clock.advance(1.0)
        await recorder.until(lambda: recorder.taken == {0: [b"0"]})


class LateSource(MemorySource):
    """Gives up joining, and is given its partitions all the same, later."""

    late: Callable[[frozenset[int]], None]

    async def start(self, assigned: Callable[[frozenset[int]], None], revoked: Callable[[], Awaitable[None]]) -> None:
        self.late = assigned
        raise Unavailable("the group rebalances for too long")


async def test_an_assignment_of_a_membership_that_was_given_up_changes_nothing(
    recorder: Recorder, metrics: StreamMetrics, topic: MemoryTopic
) -> None:
    gave_up = LateSource(topic, GROUP)
    sources: list[MemorySource] = [gave_up]
    recorder.topic.source = lambda group: sources.pop() if sources else MemorySource(topic, group)  # type: ignore[method-assign]
    async with running(recorder, metrics):
        await recorder.until(lambda: recorder.events == ["open 0"])
        gave_up.late(frozenset({0}))
        await topic.append(0, b"a")
        await recorder.until(lambda: recorder.all_taken() == [b"a"])
    assert recorder.events.count("open 0") == 1
