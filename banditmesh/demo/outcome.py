"""Reads the examples topic as any team could, to see what became of the impressions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from aiokafka import AIOKafkaConsumer

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.demo.report import Examples
from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.kafka.connect import answering, client_options

_TURN_S = 0.2
_DEADLINE_S = 30.0
_TICKS_AFTERWARDS = 3
"""So many ticks in every partition after the last example: what would come twice has come by then."""


class ExamplesReader:
    """Follows all partitions of the examples topic from now on.

    Args:
        kafka: The brokers.
        topic: The examples topic.
        into: Where the examples go.
        placement: Only examples of this placement; None: of all. A mesh that exists has other traffic beside ours.
    """

    def __init__(self, kafka: KafkaAddress | str, topic: str, into: Examples, placement: str | None = None) -> None:
        self._kafka = kafka
        self._into = into
        self._placement = placement
        self._consumer = AIOKafkaConsumer(
            topic,
            **client_options(kafka),
            isolation_level="read_committed",
            enable_auto_commit=False,
            group_id=None,
        )
        self._ticks: dict[int, int] = {}

    async def start(self) -> None:
        """Note where the topic ends now, and read from there on. Raises Unavailable: Kafka does not answer."""
        try:
            async with answering(self._kafka, _DEADLINE_S, "BANDITMESH_KAFKA"):
                await self._consumer.start()
                partitions = self._consumer.assignment()
                ends = await self._consumer.end_offsets(partitions)
        except BaseException:
            await self.stop()
            raise
        for partition, end in ends.items():
            self._consumer.seek(partition, end)
        self._ticks = {partition.partition: 0 for partition in partitions}

    async def stop(self) -> None:
        """Leave Kafka."""
        await self._consumer.stop()

    async def read(self, timeout_s: float) -> None:
        """Take in what has come, waiting at most so long for something."""
        for partition, records in (await self._consumer.getmany(timeout_ms=int(1000 * timeout_s))).items():
            for record in records:
                example = events_pb2.Example.FromString(record.value)
                if example.WhichOneof("body") == "joined":
                    if self._placement in (None, example.joined.decision.placement):
                        self._into.add(example.joined)
                    self._ticks[partition.partition] = 0
                else:
                    self._ticks[partition.partition] += 1

    async def keep_reading(self) -> None:
        """Take in what comes, until cancelled."""
        while True:
            await self.read(_TURN_S)

    async def read_until_settled(self, impressions: Collection[bytes], timeout_s: float) -> None:
        """Read on until all impressions have come out and time has passed in every partition; give up after
        ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._settled(impressions):
                    await self.read(_TURN_S)
        except TimeoutError:
            return

    def _settled(self, impressions: Collection[bytes]) -> bool:
        quiet = all(ticks >= _TICKS_AFTERWARDS for ticks in self._ticks.values())
        return quiet and all(impression in self._into.copies for impression in impressions)
