"""Records handed to an aiokafka producer: into the batches that it would put them into, for a tenth of the CPU.

``AIOKafkaProducer.send`` costs some 25 µs a record: a coroutine, two futures and an answer of its own each. Here the
records of a partition are appended to the batch that waits for it, whoever else is in it, and the batch's own future is
waited for. ``send_batch`` would not do: a partition has one batch that waits, so calls would queue up one behind the
other. Hence the private attributes (aiokafka 0.14); what is done with them is what ``add_message`` does.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from copy import copy
from typing import Any, NamedTuple, Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerClosed
from aiokafka.structs import RecordMetadata

from banditmesh.runtime.kafka.topics import partition_of


class Record(Protocol):
    """What is sent; ``producer.Record`` is one."""

    @property
    def topic(self) -> str:
        """Where it goes."""

    @property
    def key(self) -> bytes:
        """Decides the partition where none is named."""

    @property
    def value(self) -> bytes:
        """What it says."""

    @property
    def partition(self) -> int | None:
        """Where in the topic; None: by the key."""


class Sent(NamedTuple):
    """Records that are in one batch, one behind the other.

    Attributes:
        acknowledged: Says where the batch begins. It is everybody's: to be shielded from who gives up waiting.
        numbers: Of the records among those handed over.
        first: How many records of others are in the batch before them.
    """

    acknowledged: asyncio.Future[RecordMetadata]
    numbers: Sequence[int]
    first: int


async def hand_over(kafka: AIOKafkaProducer, records: Sequence[Record]) -> AsyncIterator[Sent]:
    """Hand records over, those of one partition in their order; waits where a batch is full until it is on its way.
    Raises KafkaError."""
    numbers: defaultdict[TopicPartition, list[int]] = defaultdict(list)
    counts: dict[str, int] = {}
    for number, record in enumerate(records):
        topic, partition = record.topic, record.partition
        if topic not in counts:
            counts[topic] = len(await kafka.partitions_for(topic))
        if partition is None:
            partition = partition_of(record.key, counts[topic])
        numbers[TopicPartition(topic, partition)].append(number)
    accumulator = kafka._message_accumulator
    for at, waiting in numbers.items():
        done = 0
        while done < len(waiting):
            batch = _waiting_batch(accumulator, at)
            began, first = done, batch.record_count
            while done < len(waiting) and _append(batch, records[waiting[done]]):
                done += 1
            if done > began:
                yield Sent(batch.future, waiting[began:done], first)
            if done < len(waiting):
                if not accumulator._waiter_future.done():
                    accumulator._waiter_future.set_result(None)
                await batch.wait_drain()


def _waiting_batch(accumulator: Any, at: TopicPartition) -> Any:
    """The batch that the next record of a partition goes into. Raises KafkaError when the producer is closed or has
    failed."""
    if accumulator._closed:
        raise ProducerClosed
    if accumulator._exception is not None:
        raise copy(accumulator._exception)
    pending = accumulator._batches.get(at)
    return pending[-1] if pending else accumulator._append_batch(accumulator.create_builder(), at)


def _append(batch: Any, record: Record) -> bool:
    """Whether it found room; the first one always does. The broker replaces the timestamp by its own."""
    return batch._builder.append(timestamp=None, key=record.key, value=record.value) is not None
