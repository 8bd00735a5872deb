"""Takes the topics into the evidence, committed records only, from their beginning on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from banditmesh.torture.evidence import Evidence

TOPICS: Final = ("impressions", "reactions", "examples", "late-reactions", "dead-letters")
QUIET_TICKS: Final = 3
"""So many ticks in a partition after its last example: what would come twice has come by then."""
_ANSWER_S: Final = 20.0
_READ_WITHIN_S: Final = 60.0


class TopicsReader:
    """Reads all partitions of all topics, without a group; opened anew whenever Kafka was away."""

    def __init__(self, kafka: str, partitions: int, evidence: Evidence) -> None:
        self.evidence = evidence
        self._kafka = kafka
        self._partitions = partitions
        self._positions: dict[TopicPartition, int] = {}

    async def read(self) -> None:
        """Take in everything that is committed at present. Raises KafkaError or TimeoutError; what was read until then
        is taken in."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=1 << 22,
        )
        try:
            async with asyncio.timeout(_ANSWER_S):
                await consumer.start()
                here = [TopicPartition(topic, each) for topic in TOPICS for each in range(self._partitions)]
                consumer.assign(here)
                beginnings = await consumer.beginning_offsets(here)
                ends = await consumer.end_offsets(here)
            for at in here:
                consumer.seek(at, self._positions.get(at, beginnings[at]))
            async with asyncio.timeout(_READ_WITHIN_S):
                while not await self._is_at(consumer, ends):
                    await self._some(consumer)
        finally:
            await asyncio.shield(asyncio.create_task(consumer.stop()))

    async def until_settled(self, timeout_s: float, is_whole: Callable[[], bool]) -> bool:
        """Read until every impression has its example and nothing more comes; False: it did not within the time.

        ``is_whole``: whether what was read lacks nothing else that must come sooner or later.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            try:
                await self.read()
                if self._is_settled() and is_whole():
                    return True
            except (KafkaError, TimeoutError):
                pass  # away: that is what the time is for
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.5)

    def _is_settled(self) -> bool:
        evidence = self.evidence
        quiet = all(evidence.ticks[each] >= QUIET_TICKS for each in range(self._partitions))
        return quiet and not evidence.awaited and all(each in evidence.letters for each in evidence.unreadable)

    async def _is_at(self, consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether it is at the ends; a fetch that brings nothing says nothing, on a machine that is busy."""
        return all([await consumer.position(at) >= end for at, end in ends.items()])

    async def _some(self, consumer: AIOKafkaConsumer) -> None:
        async with asyncio.timeout(_ANSWER_S):
            fetched = await consumer.getmany(timeout_ms=400, max_records=20_000)
        evidence = self.evidence
        for at, records in fetched.items():
            for each in records:
                value = each.value or b""
                if at.topic == "impressions":
                    evidence.impression(at.partition, each.offset, each.timestamp, value)
                elif at.topic == "reactions":
                    evidence.reaction(at.partition, each.offset, each.timestamp, value)
                elif at.topic == "examples":
                    evidence.example(at.partition, each.offset, value)
                elif at.topic == "late-reactions":
                    evidence.late_reaction(at.partition, each.offset, value)
                else:
                    evidence.dead_letter(value)
            self._positions[at] = records[-1].offset + 1
        await asyncio.sleep(0)
