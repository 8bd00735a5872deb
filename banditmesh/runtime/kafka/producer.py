"""Records to Kafka, acknowledged by all in-sync replicas or refused in time.

An idempotent aiokafka producer retries by itself, without an end and without raising anything while Kafka is away
(seen with 0.14). So every send has a deadline here. When it passes, or the producer fails, the whole producer is thrown
away with everything it still holds, and the next send opens a new one.

**What an answer means.** An :class:`Acked` record is on the disks of all in-sync replicas. After :class:`Unavailable`
a record may be there all the same: the broker may have written it and not lived to say so. Sending it again then writes
it twice. That is safe in the mesh: the joiner makes one example of an impression and counts a kind of reaction once,
however often they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import RecordMetadata

from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.errors import InvalidArgument, Unavailable
from banditmesh.runtime.kafka.batches import Sent, hand_over
from banditmesh.runtime.kafka.connect import client_options, kafka_address, why_not
from banditmesh.runtime.kafka.discard import discard, note_exception
from banditmesh.runtime.kafka.refusals import RefusedTopics, in_words
from banditmesh.runtime.kafka.sizes import ENVELOPE_BYTES, MAX_BATCH_BYTES, MessageSizes
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages

log = get_logger(__name__)

_RECORD_OVERHEAD_BYTES = 300
"""Memory of a waiting record beside its key and value: future, tuples, position in the batch."""
_QUIET_S = 5.0
_PRODUCERS_TIME = 0
"""``CreateTime``, as an acknowledgement says it."""


class Record(NamedTuple):
    """What to send. ``partition`` None: by the key, as Kafka's default partitioner does (``topics.partition_of``)."""

    topic: str
    key: bytes
    value: bytes
    partition: int | None = None

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key) + len(self.value)


class Acked(NamedTuple):
    """Where an acknowledged record stands.

    ``offset`` is -1 in one rare case: the broker knows that it has the record already but not where, when an
    acknowledgement was lost and more than five batches followed. ``timestamp_ms`` is the broker's time
    (``LogAppendTime``), milliseconds since the Unix epoch.
    """

    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True)
class ProducerLimits:
    """Bounds of a producer; beyond them it answers Unavailable."""

    ack_timeout_s: float = 3.0
    """From a send to its acknowledgement; a leader election of a healthy cluster takes less."""
    connect_timeout_s: float = 3.0
    max_records: int = 50_000
    """Sent and not acknowledged."""
    max_bytes: int = 64 * 1024 * 1024
    """Memory of those records."""
    max_batch_bytes: int = MAX_BATCH_BYTES
    retry_after_s: float = 0.5
    """What refused callers are told, and how long a failed connection is not tried again."""


class Producer:
    """Sends records; safe to use from any number of tasks of one loop.

    :meth:`start` and the sends raise :class:`Unavailable` with ``retry_after_s`` when Kafka does not acknowledge in
    time or too much is waiting already. There is nothing to do to recover: the next send or :meth:`ping` connects
    again.
    """

    def __init__(
        self,
        kafka: KafkaAddress | str,
        *,
        client_id: str = "banditmesh",
        limits: ProducerLimits = ProducerLimits(),
        sizes: MessageSizes | None = None,
    ) -> None:
        """``kafka``: the brokers; a text is plaintext ones. ``client_id``: our name in the broker's logs and quotas;
        ``sizes``: what the process knows of the topics, unless it has no other producer."""
        self.sizes = sizes or MessageSizes()
        self._address = kafka_address(kafka)
        self._client_id = client_id
        self._limits = limits
        self._kafka: AIOKafkaProducer | None = None
        self._connecting: asyncio.Task[AIOKafkaProducer] | None = None
        self._connect_after_s = 0.0
        self._deliveries: set[asyncio.Task[list[Acked]]] = set()
        self._discards: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._clocks_of_producers: set[str] = set()
        self._work = outages.work(f"producer {client_id}")
        self._failed_at_s = -_QUIET_S
        self._refused = RefusedTopics()
        self._retired = False
        """Whether the last producer was given up while all was well."""
        self.records_in_flight = 0
        """Sent and not acknowledged."""
        self.bytes_in_flight = 0
        """Memory of those records."""

    async def start(self) -> None:
        """Connect, so that wrong addresses are noticed now."""
        await self._connected()

    async def ping(self) -> None:
        """Return when Kafka answers; a health check's probe."""
        kafka = await self._connected()
        if not await kafka.client.force_metadata_update():
            raise Unavailable(
                f"Kafka at {self._address} does not answer",
                retry_after_s=self._limits.retry_after_s,
                dependency="kafka",
            )
        # A broker that answers this may still acknowledge nothing: only a while without a failure says more.
        if asyncio.get_running_loop().time() - self._failed_at_s > _QUIET_S:
            self._work.well()

    async def send(self, topic: str, key: bytes, value: bytes, partition: int | None = None) -> Acked:
        """Send one record and wait for its acknowledgement; see :meth:`send_many`."""
        (acked,) = await self.send_many([Record(topic, key, value, partition)])
        return acked

    async def send_many(self, records: Sequence[Record], *, timeout_s: float | None = None) -> list[Acked]:
        """Send records together and wait until all of them are acknowledged.

        Records of one partition keep their order. A caller that is cancelled, or whose ``timeout_s`` is over, leaves
        its records on their way; they count as in flight until they are acknowledged or given up.

        Raises:
            Unavailable: Not all were acknowledged in time; some may be written nevertheless, so send all of them again.
            InvalidArgument: A record is larger than its topic takes; none was sent.
        """
        size = self._admit(records)
        delivery = asyncio.create_task(self._deliver(records, size))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._delivered)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(delivery)
        except TimeoutError:
            raise self._unavailable(f"no acknowledgement within {timeout_s:g} s") from None

    async def stop(self, deadline_s: float = 5.0) -> None:
        """Refuse new sends, wait for those on their way at most ``deadline_s``, disconnect."""
        self._stopping = True
        if self._connecting is not None:
            self._connecting.cancel()
        late: set[asyncio.Task[list[Acked]]] = set()
        if self._deliveries:
            _, late = await asyncio.wait(self._deliveries, timeout=deadline_s)
        if late:
            log.error(
                "records were not acknowledged before the stop", records=self.records_in_flight, deadline_s=deadline_s
            )
        if self._kafka is not None:
            self._throw_away(self._kafka, "stop")
        if self._discards:
            await asyncio.wait(self._discards)

    def _admit(self, records: Sequence[Record]) -> int:
        """Bytes of the records, which are in flight from now on."""
        size = _RECORD_OVERHEAD_BYTES * len(records)
        largest: dict[str, int] = {}
        for topic, key, value, _ in records:
            record_bytes = len(key) + len(value)
            size += record_bytes
            if record_bytes > largest.get(topic, -1):
                largest[topic] = record_bytes
        for topic, record_bytes in largest.items():
            if not self.sizes.takes(topic, record_bytes):
                raise InvalidArgument(f"a record for topic {topic} has {record_bytes} bytes, more than it takes")
        if self._stopping:
            raise self._unavailable("the producer is stopping")
        limits = self._limits
        if self.records_in_flight + len(records) > limits.max_records or self.bytes_in_flight + size > limits.max_bytes:
            raise self._unavailable(
                f"{self.records_in_flight} records of {self.bytes_in_flight} bytes are waiting already"
            )
        self.records_in_flight += len(records)
        self.bytes_in_flight += size
        return size

    async def _deliver(self, records: Sequence[Record], size: int) -> list[Acked]:
        """Runs as a task of its own, so that a caller who gives up does not make room for more than there is."""
        kafka: AIOKafkaProducer | None = None
        refusal: TopicAuthorizationFailedError | None = None
        sent: list[Sent] = []
        try:
            kafka = await self._connected()
            async with asyncio.timeout(self._limits.ack_timeout_s):
                async for part in hand_over(kafka, records):
                    sent.append(part)
                done = [await asyncio.shield(part.acknowledged) for part in sent]
                self._see_whose_time_it_is(done)
                self._work.well()
                self._refused.taken({record.topic for record in records})
                return _acked(sent, done)
        except TimeoutError:
            reason, away = f"no acknowledgement within {self._limits.ack_timeout_s:g} s", True
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            reason, away = in_words(error, "Write"), False
            assert kafka is not None
            self._learn_sizes(records, sent, kafka._message_accumulator._batch_size)
        except TopicAuthorizationFailedError as error:
            # What it has of other topics gets to its end.
            reason, away, refusal = in_words(error, "Write"), False, error
        except KafkaError as error:
            reason, away = in_words(error, "Write"), True
        finally:
            self.records_in_flight -= len(records)
            self.bytes_in_flight -= size
        for part in sent:
            part.acknowledged.add_done_callback(note_exception)
        if refusal is not None:
            if kafka is not None and sent:  # the refused batch has a number that no later one may follow on
                self._retire(kafka)
            raise self._refused.noted(refusal, lambda of: self._unavailable(reason, dependency=of))
        if kafka is not None:
            self._throw_away(kafka, reason)
        raise self._failed(reason) if away else self._unavailable(reason)

    def _see_whose_time_it_is(self, done: Sequence[RecordMetadata]) -> None:
        """Say it once of each topic that keeps its producer's time: every join would be decided by our clock. A user
        that may not describe topics hears of it here only."""
        for each in done:
            if each.timestamp_type == _PRODUCERS_TIME and each.topic not in self._clocks_of_producers:
                self._clocks_of_producers.add(each.topic)
                log.error(
                    "the topic keeps the producer's time, must be the broker's",
                    topic=each.topic,
                    hint="set message.timestamp.type=LogAppendTime",
                )

    def _learn_sizes(self, records: Sequence[Record], sent: Sequence[Sent], batch_bytes: int) -> None:
        """Note which topics take less than they were sent. A record that is larger than a batch (of ``batch_bytes``)
        was refused alone; what was in the batch of another one is not known."""
        refused = [
            records[number]
            for part in sent
            if part.acknowledged.done()
            and isinstance(part.acknowledged.exception(), MessageSizeTooLargeError | RecordListTooLargeError)
            for number in part.numbers
        ]
        for topic in {record.topic for record in refused}:
            sizes = [record.size + ENVELOPE_BYTES for record in refused if record.topic == topic]
            if max(sizes) > batch_bytes:
                self.sizes.refused(topic, max(sizes), 1)
            else:
                self.sizes.refused(topic, batch_bytes, len(sizes) + 1)

    def _delivered(self, delivery: asyncio.Task[list[Acked]]) -> None:
        self._deliveries.discard(delivery)
        note_exception(delivery)

    async def _connected(self) -> AIOKafkaProducer:
        if self._kafka is not None:
            return self._kafka
        if self._connecting is None:
            wait_s = self._connect_after_s - asyncio.get_running_loop().time()
            if wait_s > 0:
                raise self._unavailable("the last connection failed", wait_s)
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(note_exception)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> AIOKafkaProducer:
        kafka = self._open()
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                await kafka.start()
        except TimeoutError as error:
            raise await self._not_connected(kafka, f"no answer within {self._limits.connect_timeout_s:g} s") from error
        except KafkaError as error:
            # Quick: what refused us a moment ago refuses us again.
            raise await self._not_connected(kafka, await why_not(self._address, within_s=1.0)) from error
        except asyncio.CancelledError:
            await discard(kafka)
            raise self._unavailable("the producer is stopping") from None
        finally:
            self._connecting = None
        self._kafka = kafka
        say, self._retired = log.debug if self._retired else log.info, False
        say("connected to kafka", servers=str(self._address))
        return kafka

    async def _not_connected(self, kafka: AIOKafkaProducer, reason: str) -> Unavailable:
        self._connect_after_s = asyncio.get_running_loop().time() + self._limits.retry_after_s
        await discard(kafka)
        return self._failed(reason)

    def _open(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **client_options(self._address),
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            max_batch_size=min(self._limits.max_batch_bytes, self.sizes.smallest_batch()),
            # How long one request waits for a broker that hangs. It raises nothing: the deadline here does.
            request_timeout_ms=int(self._limits.ack_timeout_s * 1000),
        )

    def _retire(self, kafka: AIOKafkaProducer) -> None:
        """Send nothing more by this producer, and close it when what others have given it is done with."""
        if self._kafka is not kafka:
            return
        self._kafka, self._retired = None, True
        others = self._deliveries - {asyncio.current_task()}
        task = asyncio.create_task(self._close_after(kafka, others))
        self._discards.add(task)
        task.add_done_callback(self._discards.discard)

    async def _close_after(self, kafka: AIOKafkaProducer, deliveries: set[asyncio.Task[list[Acked]]]) -> None:
        if deliveries:
            await asyncio.wait(deliveries, timeout=self._limits.ack_timeout_s)
        await discard(kafka, "a topic was refused")

    def _throw_away(self, kafka: AIOKafkaProducer, reason: str) -> None:
        if self._kafka is not kafka:  # somebody else did it
            return
        self._kafka = None
        if not self._stopping:
            log.debug("producer thrown away", reason=reason, records_in_flight=self.records_in_flight)
        task = asyncio.create_task(discard(kafka, reason))
        self._discards.add(task)
        task.add_done_callback(self._discards.discard)

    def _failed(self, reason: str) -> Unavailable:
        """Kafka is away: said once."""
        error = self._unavailable(reason)
        if not self._stopping:
            self._failed_at_s = asyncio.get_running_loop().time()
            self._work.failed(error, records_in_flight=self.records_in_flight)
        return error

    def _unavailable(self, reason: str, retry_after_s: float | None = None, dependency: str = "kafka") -> Unavailable:
        return Unavailable(
            f"Kafka at {self._address} does not take records: {reason}",
            retry_after_s=self._limits.retry_after_s if retry_after_s is None else retry_after_s,
            dependency=dependency,
        )


def _acked(sent: Sequence[Sent], done: Sequence[RecordMetadata]) -> list[Acked]:
    """Where each record stands, in the order in which they were handed over."""
    places: dict[int, Acked] = {}
    for part, batch in zip(sent, done, strict=True):
        for at, number in enumerate(part.numbers, batch.offset + part.first):
            places[number] = Acked(batch.partition, at if batch.offset >= 0 else batch.offset, batch.timestamp)
    return [places[number] for number in range(len(places))]
