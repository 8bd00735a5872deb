"""Exactly-once output of one input partition: records and the input's next offset are written together, or not at all.

Rules that were seen to break otherwise (aiokafka 0.14): a transactional id belongs to one input partition, never to a
process; the acknowledgements are awaited before the offsets are added; after any failure the producer is thrown away,
because opening the next one ends what was left open, and only then is the committed offset the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
)

from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.errors import FailedPrecondition, Unavailable
from banditmesh.runtime.kafka.connect import client_options
from banditmesh.runtime.kafka.producer import Record, discard, note_exception
from banditmesh.runtime.kafka.topic_check import MIN_MESSAGE_BYTES
from banditmesh.runtime.stream import Fenced

TRANSACTION_TIMEOUT_S = 40.0
"""With 10 s a fail-over of the broker fenced every producer."""
OPEN_DEADLINE_S = 20.0
COMMIT_DEADLINE_S = 30.0
MAX_BATCH_BYTES = 128 * 1024


class TransactionalProducer:
    """Writes transactions under one id. After anything that was raised it can only be closed."""

    def __init__(self, kafka: AIOKafkaProducer, transactional_id: str) -> None:
        """Use :meth:`open`."""
        self._kafka = kafka
        self._id = transactional_id

    @classmethod
    async def open(cls, kafka: KafkaAddress | str, transactional_id: str) -> TransactionalProducer:
        """Connect, fence every older producer of this id, and wait until its open transaction is ended.

        Raises:
            Unavailable: Kafka did not answer in time.
        """
        producer = AIOKafkaProducer(
            **client_options(kafka),
            client_id=transactional_id,
            transactional_id=transactional_id,
            transaction_timeout_ms=int(TRANSACTION_TIMEOUT_S * 1000),
            max_batch_size=MAX_BATCH_BYTES,
        )
        try:
            async with asyncio.timeout(OPEN_DEADLINE_S):
                await producer.start()  # returns when the producer has its epoch, which fences
        except (KafkaError, TimeoutError) as error:
            await discard(producer)
            raise Unavailable(
                f"Kafka does not open transactions of {transactional_id}: {_in_words(error)}", retry_after_s=1.0
            ) from error
        except BaseException:
            await discard(producer)
            raise
        return cls(producer, transactional_id)

    async def write(
        self,
        records: Sequence[Record],
        *,
        group: str = "",
        offsets: Mapping[tuple[str, int], tuple[int, str]] | None = None,
    ) -> None:
        """Write records in one transaction, together with the next offsets of ``group`` in input partitions (topic and
        number), each with a text that is kept with it.

        Every record names its partition; records of one partition keep their order.

        Raises:
            Fenced: A newer producer of this id exists, or the broker has ended the transaction.
            FailedPrecondition: A topic takes no messages of our size; its limit was lowered since the start.
            Unavailable: Kafka did not answer in time. Whether it was committed is only known after the next
            :meth:`open`.
        """
        async with self._fatal({record.topic for record in records}):
            await self._kafka.begin_transaction()
            for acknowledged in await self._send(records):
                await acknowledged
            if offsets:
                wanted = {TopicPartition(*at): next_offset for at, next_offset in offsets.items()}
                await self._kafka.send_offsets_to_transaction(wanted, group)
            await self._kafka.commit_transaction()

    async def close(self) -> None:
        """Disconnect. A transaction that is open stays so until the next owner opens, or the broker ends it."""
        await discard(self._kafka, "closed")

    async def _send(self, records: Iterable[Record]) -> list[asyncio.Future[object]]:
        sent: list[asyncio.Future[object]] = []
        batches: dict[tuple[str, int], object] = {}
        for record in records:
            assert record.partition is not None
            at = record.topic, record.partition
            batch = batches.get(at)
            if batch is None or not _append(batch, record):
                if batch is not None:
                    sent.append(await self._send_batch(batch, at))
                batches[at] = batch = self._kafka.create_batch()
                _append(batch, record)  # the first record always finds room
        for at, batch in batches.items():
            sent.append(await self._send_batch(batch, at))
        return sent

    async def _send_batch(self, batch: object, at: tuple[str, int]) -> asyncio.Future[object]:
        acknowledged: asyncio.Future[object] = await self._kafka.send_batch(batch, at[0], partition=at[1])
        # The first that fails ends the transaction; nobody is left to look at the others, nor at what aiokafka 0.14
        # keeps for those who wait for room.
        acknowledged.add_done_callback(note_exception)
        for waiting in self._kafka._message_accumulator._batches.get(TopicPartition(*at), ()):
            waiting._drain_waiter.add_done_callback(note_exception)
        return acknowledged

    @asynccontextmanager
    async def _fatal(self, topics: Collection[str]) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(COMMIT_DEADLINE_S):
                yield
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise Fenced(f"{self._id} was fenced") from error
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            raise FailedPrecondition(
                f"Kafka refuses messages of our size to {' or '.join(sorted(topics))}: the partition stands still",
                hint=f"set max.message.bytes of the topic to at least {MIN_MESSAGE_BYTES}",
            ) from error
        except (KafkaError, TimeoutError) as error:
            raise Unavailable(f"transaction of {self._id}: {_in_words(error)}", retry_after_s=1.0) from error


def _append(batch: object, record: Record) -> bool:
    # 14 times cheaper than a send of each record. The broker replaces the timestamp by its own.
    return batch.append(timestamp=None, key=record.key, value=record.value) is not None  # type: ignore[attr-defined]


def _in_words(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
