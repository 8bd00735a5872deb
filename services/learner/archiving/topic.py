"""Examples out of the topic itself, as the archive would have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime

import pyarrow as pa
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.errors import NotFound
from banditmesh.runtime.kafka.connect import answering, client_options
from services.learner.archiving.rows import Row, chunk
from services.learner.examples import decode

DEADLINE_S = 30.0
"""Kafka may be silent for so long."""
_POLL_MS = 500
_SETTING = "BANDITMESH_KAFKA"


async def examples(
    kafka: KafkaAddress, topic: str, start: datetime, end: datetime, user_id: Callable[[str], str] | None
) -> AsyncIterator[tuple[str, pa.RecordBatch]]:
    """Placement and rows of what was shown in start (included) to end (excluded), up to where the topic ends now.

    A second copy of an impression, which learners pass over, is passed over here too.

    Raises:
        NotFound: There is no such topic.
        Unavailable: Kafka does not answer.
    """
    consumer = AIOKafkaConsumer(
        **client_options(kafka), group_id=None, enable_auto_commit=False, isolation_level="read_committed"
    )
    try:
        async with answering(kafka, DEADLINE_S, _SETTING):
            await consumer.start()
            known = (await consumer._client.fetch_all_metadata()).partitions_for_topic(topic)
            if not known:
                raise NotFound(f"there is no topic {topic!r} in Kafka at {kafka}", hint="is kafka.topic_prefix right?")
            partitions = [TopicPartition(topic, number) for number in sorted(known)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            start_ms, end_ms = (round(each.timestamp() * 1000) for each in (start, end))
            # An example comes after its impression, so none of those that are wanted stands before this.
            begins = await consumer.offsets_for_times(dict.fromkeys(partitions, start_ms))
            for each in partitions:
                found = begins.get(each)
                consumer.seek(each, found.offset if found is not None else ends[each])
        seen: dict[tuple[int, int], int] = {}
        while unread := [each for each in partitions if await consumer.position(each) < ends[each]]:
            for at, records in (await _some(consumer, unread, kafka)).items():
                rows: dict[str, list[Row]] = {}
                for record in records:
                    try:
                        example = decode(record.value or b"", record.timestamp)
                    except Unreadable:
                        continue
                    if example is None:
                        continue
                    source = example.source
                    last = seen.get((source.log, source.partition), -1)
                    if source.offset <= last:
                        continue
                    seen[source.log, source.partition] = source.offset
                    if start_ms <= example.joined.impression_time_ms < end_ms:
                        rows.setdefault(example.placement, []).append(Row(record.offset, record.timestamp, example))
                for placement, of_this in rows.items():
                    yield placement, chunk(of_this, 0, at.partition, user_id).rows
    finally:
        await consumer.stop()


async def _some(
    consumer: AIOKafkaConsumer, unread: list[TopicPartition], kafka: KafkaAddress
) -> dict[TopicPartition, list[ConsumerRecord]]:
    """The next records of some partitions; none where there were only marks of transactions, and time goes on."""
    began = [await consumer.position(each) for each in unread]
    async with answering(kafka, DEADLINE_S, _SETTING):
        while True:
            found: dict[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(*unread, timeout_ms=_POLL_MS)
            if found or [await consumer.position(each) for each in unread] != began:
                return found
