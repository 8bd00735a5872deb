"""Exactly-once output of one input partition: records and the input's next offset are written together, or not at all.

Rules that were seen to break otherwise (aiokafka 0.14): a transactional id belongs to one input partition, never to a
process; the acknowledgements are awaited before the offsets are added; after any failure the producer is thrown away,
because opening the next one ends what was left open, and only then is the committed offset the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

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
from banditmesh.runtime.kafka.discard import discard, note_exception
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.refusals import in_words
from banditmesh.runtime.kafka.sizes import MAX_BATCH_BYTES, MessageSizes
from banditmesh.runtime.stream import Fenced, StartOver

TRANSACTION_TIMEOUT_S = 40.0
"""With 10 s a fail-over of the broker fenced every producer."""
OPEN_DEADLINE_S = 20.0
COMMIT_DEADLINE_S = 30.0

_Sent = tuple[asyncio.Future[object], str, Any]


class TransactionalProducer:
    """Writes transactions under one id. After anything that was raised it can only be closed."""

    def __init__(self, kafka: AIOKafkaProducer, transactional_id: str, sizes: MessageSizes) -> None:
        """Use :meth:`open`."""
        self.sizes = sizes
        self._kafka = kafka
        self._id = transactional_id

    @classmethod
    async def open(
        cls, kafka: KafkaAddress | str, transactional_id: str, sizes: MessageSizes | None = None
    ) -> TransactionalProducer:
        """Connect, fence every older producer of this id, and wait until its open transaction is ended.

        ``sizes``: what the process knows of the topics, unless it has no other producer.

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
                f"Kafka does not open transactions of {transactional_id}: {in_words(error, 'Write')}",
                retry_after_s=1.0,
                dependency="kafka",
            ) from error
        except BaseException:
            await discard(producer)
            raise
        return cls(producer, transactional_id, sizes or MessageSizes())

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
            StartOver: A topic takes no messages of this size; ``sizes`` knows by now what to leave out.
            FailedPrecondition: A topic takes next to nothing, not even a dead letter.
            Unavailable: Kafka did not answer in time. Whether it was committed is only known after the next
            :meth:`open`.
        """
        async with self._fatal():
            await self._kafka.begin_transaction()
            for acknowledged, topic, batch in await self._send(records):
                try:
                    await acknowledged
                except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
                    raise self._too_large(topic, batch) from error
            if offsets:
                wanted = {TopicPartition(*at): next_offset for at, next_offset in offsets.items()}
                await self._kafka.send_offsets_to_transaction(wanted, group)
            await self._kafka.commit_transaction()

    async def close(self) -> None:
        """Disconnect. A transaction that is open stays so until the next owner opens, or the broker ends it."""
        await discard(self._kafka, "closed")

    def _too_large(self, topic: str, batch: Any) -> Exception:
        if self.sizes.refused(topic, batch.size(), batch.record_count()):
            return StartOver(f"topic {topic} takes no message of {batch.size()} bytes")
        return FailedPrecondition(
            f"topic {topic} takes no message of {batch.size()} bytes; what was acknowledged is not thrown away, so "
            "the partition waits",
            hint="raise max.message.bytes of the topic",
        )

    async def _send(self, records: Iterable[Record]) -> list[_Sent]:
        """Each batch with its acknowledgement and its topic."""
        sent: list[_Sent] = []
        batches: dict[tuple[str, int], Any] = {}
        for record in records:
            assert record.partition is not None
            at = record.topic, record.partition
            batch = batches.get(at)
            if batch is None or not self._append(batch, record):
                if batch is not None:
                    sent.append((await self._send_batch(batch, at), record.topic, batch))
                batches[at] = batch = self._kafka.create_batch()
                self._append(batch, record)  # the first record always finds room
        for at, batch in batches.items():
            sent.append((await self._send_batch(batch, at), at[0], batch))
        return sent

    def _append(self, batch: Any, record: Record) -> bool:
        """Whether it found room."""
        most_bytes = self.sizes.batch_bytes(record.topic)
        if most_bytes < MAX_BATCH_BYTES and batch.record_count() and batch.size() + record.size > most_bytes:
            return False
        # 14 times cheaper than a send of each record. The broker replaces the timestamp by its own.
        return batch.append(timestamp=None, key=record.key, value=record.value) is not None

    async def _send_batch(self, batch: object, at: tuple[str, int]) -> asyncio.Future[object]:
        acknowledged: asyncio.Future[object] = await self._kafka.send_batch(batch, at[0], partition=at[1])
        # The first that fails ends the transaction; nobody is left to look at the others, nor at what aiokafka 0.14
        # keeps for those who wait for room.
        acknowledged.add_done_callback(note_exception)
        for waiting in self._kafka._message_accumulator._batches.get(TopicPartition(*at), ()):
            waiting._drain_waiter.add_done_callback(note_exception)
            # `acknowledged` shields it: once that is cancelled, by a deadline, it looks after this one no more.
            waiting.future.add_done_callback(note_exception)
        return acknowledged

    @asynccontextmanager
    async def _fatal(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(COMMIT_DEADLINE_S):
                yield
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise Fenced(f"{self._id} was fenced") from error
        except (KafkaError, TimeoutError) as error:
            raise Unavailable(
                f"transaction of {self._id}: {in_words(error, 'Write')}", retry_after_s=1.0, dependency="kafka"
            ) from error
