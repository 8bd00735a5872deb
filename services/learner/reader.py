"""Topic ``examples`` as the learner reads it: all partitions, committed records only, positions of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.connect import client_options, kafka_address, undisturbed
from banditmesh.runtime.kafka.identity import log_number, topic_id
from banditmesh.runtime.kafka.refusals import in_words
from banditmesh.runtime.kafka.reports import Reports
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.stream import Consumed

log = get_logger(__name__)

DEADLINE_S = 10.0
"""Of every question to the broker; aiokafka 0.14 itself waits without an end."""
AT_ONCE = 2000


Known = Mapping[int, Sequence[tuple[int, int]]]
"""Where to begin in each partition: offsets, each with the log that it counts (0: not known). The least one that counts
the log that is read is taken; a partition that is missing is read from its beginning."""


class Reader(Protocol):
    """Where examples come from."""

    logs: dict[int, int]
    """Partition → the log that is read: another number after the topic was made anew."""

    positions: dict[int, int]
    """Every partition, with the offset that it is read from next. Control records do not count."""
    lost: int
    """Offsets that were gone before they could be read."""

    async def read(self, partitions: Sequence[int], timeout_s: float) -> Mapping[int, Sequence[Consumed]]:
        """What has come in these partitions; waits up to ``timeout_s`` for something. Raises Unavailable."""
        ...

    async def is_at_end(self, partition: int) -> bool:
        """Whether the broker says that there is nothing more; False when it says nothing."""
        ...

    def lag(self) -> Mapping[int, int]:
        """Offsets up to each partition's end, as of the last answers."""
        ...

    def grown(self) -> bool:
        """Whether the topic has other partitions than those that are read."""
        ...

    def report(self, positions: Mapping[int, int]) -> None:
        """Show people's tools how far learning is; see ``runtime.kafka.reports``."""
        ...


class KafkaReader:
    """A consumer that reads all partitions: ``async with KafkaReader(…) as reader``."""

    def __init__(
        self,
        kafka: KafkaAddress | str,
        topic: str,
        group: str,
        known: Known | Callable[[Mapping[int, int]], Known],
        *,
        mine: Callable[[int], bool] = lambda partition: True,
        look_back: int = 0,
    ) -> None:
        """
        Args:
            group: Where positions are reported.
            known: Where to begin; or what tells it, asked with the log of each partition.
            mine: Which partitions to read.
            look_back: So many offsets before those known it begins, as far as they are there still.
        """
        self._topic = topic
        self._kafka = kafka_address(kafka)
        self._consumer = AIOKafkaConsumer(
            **client_options(kafka),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=250,
        )
        self._reports = Reports(self._consumer)
        self._begin = known
        self._known: Known = {}
        self._mine = mine
        self._look_back = look_back
        self.positions: dict[int, int] = {}
        self.logs: dict[int, int] = {}
        self.lost = 0

    async def __aenter__(self) -> Self:
        """Connect and go to the positions. Raises Unavailable."""
        try:
            await undisturbed(self._connect())
        except BaseException as error:
            await self._consumer.stop()
            if isinstance(error, KafkaError | TimeoutError):
                raise Unavailable(f"Kafka at {self._kafka}: {in_words(error, 'Read')}", dependency="kafka") from error
            raise
        return self

    async def _connect(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self._consumer.start()
            # Before an assignment, aiokafka 0.14 answers `partitions_for_topic` without having asked a broker.
            cluster = await self._consumer._client.fetch_all_metadata()
            partitions = cluster.partitions_for_topic(self._topic)
            if not partitions:
                raise Unavailable(f"topic {self._topic!r} does not exist at {self._kafka} yet", dependency="kafka")
            tps = [TopicPartition(self._topic, partition) for partition in sorted(filter(self._mine, partitions))]
            identity = await topic_id(self._consumer._client, self._topic)
            self.logs = {tp.partition: log_number(identity, tp.partition) for tp in tps}
            self._known = self._begin(self.logs) if callable(self._begin) else self._begin
            first, end = await self._consumer.beginning_offsets(tps), await self._consumer.end_offsets(tps)
            self._consumer.assign(tps)
            for tp in tps:
                wanted = self._wanted(tp.partition, first[tp])
                start = self._start(tp.partition, wanted, first[tp], end[tp])
                self.positions[tp.partition] = max(start - self._look_back, first[tp])
            for tp in tps:
                self._consumer.seek(tp, self.positions[tp.partition])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reports.settle()
        await self._consumer.stop()
        await self._reports.settle()

    async def read(self, partitions: Sequence[int], timeout_s: float) -> Mapping[int, Sequence[Consumed]]:
        """See `Reader.read`."""
        tps = [TopicPartition(self._topic, partition) for partition in partitions]
        self._reports.send()
        try:
            found = await self._consumer.getmany(*tps, timeout_ms=int(timeout_s * 1000), max_records=AT_ONCE)
        except OffsetOutOfRangeError:  # retention has overtaken us
            await self._go_to_the_earliest(tps)
            return {}
        except KafkaError as error:
            raise Unavailable(f"Kafka at {self._kafka}: {in_words(error, 'Read')}", dependency="kafka") from error
        for tp, records in found.items():
            self.positions[tp.partition] = records[-1].offset + 1
            outages.well(_end_of(tp.partition))  # nobody asks for the end of a partition that is not silent
        return {
            tp.partition: [
                Consumed(r.topic, r.partition, r.offset, r.timestamp, r.key or b"", r.value or b"") for r in records
            ]
            for tp, records in found.items()
        }

    async def is_at_end(self, partition: int) -> bool:
        """See `Reader.is_at_end`."""
        tp = TopicPartition(self._topic, partition)
        try:
            async with asyncio.timeout(DEADLINE_S):
                end = await self._consumer.end_offsets([tp])
                # The client's position, unlike ours, goes past the markers of transactions.
                at_end = bool(await self._consumer.position(tp) >= end[tp])
        except (KafkaError, TimeoutError) as error:
            outages.failed(_end_of(partition), error, of="kafka")
            return False
        outages.well(_end_of(partition))
        return at_end

    def lag(self) -> Mapping[int, int]:
        """See `Reader.lag`."""
        ends = {
            partition: self._consumer.highwater(TopicPartition(self._topic, partition)) for partition in self.positions
        }
        return {
            partition: max(0, end - self.positions[partition]) for partition, end in ends.items() if end is not None
        }

    def grown(self) -> bool:
        """See `Reader.grown`."""
        known = self._consumer.partitions_for_topic(self._topic)
        return bool(known) and set(filter(self._mine, known)) != set(self.positions)

    def report(self, positions: Mapping[int, int]) -> None:
        """See `Reader.report`."""
        for partition, offset in positions.items():
            self._reports.note(TopicPartition(self._topic, partition), offset)

    def _wanted(self, partition: int, first: int) -> int:
        log = self.logs[partition]
        return min(
            (offset if of in (0, log) else first for offset, of in self._known.get(partition, ())), default=first
        )

    def _start(self, partition: int, wanted: int, first: int, end: int) -> int:
        if first <= wanted <= end:
            return wanted
        self.lost += max(0, first - wanted)
        log.error(
            "offset is not there any more; going on with the earliest",
            partition=partition,
            wanted=wanted,
            earliest=first,
            end=end,
        )
        return first

    async def _go_to_the_earliest(self, tps: Sequence[TopicPartition]) -> None:
        """Raises Unavailable."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                first, end = await self._consumer.beginning_offsets(tps), await self._consumer.end_offsets(tps)
        except (KafkaError, TimeoutError) as error:
            raise Unavailable(f"Kafka at {self._kafka}: {in_words(error, 'Read')}", dependency="kafka") from error
        for tp in tps:
            start = self._start(tp.partition, self.positions[tp.partition], first[tp], end[tp])
            if start != self.positions[tp.partition]:
                self.positions[tp.partition] = start
                self._consumer.seek(tp, start)


def _end_of(partition: int) -> str:
    """The work of asking for the end of a partition, in the log."""
    return f"end of partition {partition}"
