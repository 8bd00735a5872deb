"""A consumer group's member on aiokafka 0.14, behind the :class:`banditmesh.runtime.stream.Source` interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.committed import committed
from banditmesh.runtime.kafka.connect import client_options, kafka_address, undisturbed
from banditmesh.runtime.kafka.identity import log_number, topic_id
from banditmesh.runtime.kafka.refusals import in_words
from banditmesh.runtime.kafka.reports import Reports
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.stream import Consumed, OutOfRange

log = get_logger(__name__)

_CALL_S = 10.0
_STOP_S = 5.0
_FETCH_GRACE_S = 5.0
"""``getmany`` does not return at its timeout while the group rebalances."""
_UNPOSITIONED_S = 0.02
_METADATA_AGE_S = 10.0
"""How often the topic's partitions are looked up. A group whose leader joins while the topic is away (its Kafka came
back without data) shares out nothing, and aiokafka 0.14 looks again after five minutes only."""

_UNANSWERED_S = 30.0
"""After so long in which no question was answered the consumer is given up for another one. Seen with aiokafka 0.14:
after a restart of the broker one consumer of three got no answer any more, however often it asked."""

_stopping: set[asyncio.Task[None]] = set()
"""Consumers that are still leaving their group."""


class KafkaSource:
    """One membership of ``group`` on ``topic``. Commits nothing by itself."""

    def __init__(
        self,
        kafka: KafkaAddress | str,
        topic: str,
        group: str,
        *,
        client_id: str,
        read_committed: bool = False,
        session_timeout_s: float = 10.0,
    ) -> None:
        """``kafka``: the brokers; a text is plaintext ones. ``read_committed``: leave out records of transactions that
        are open or were aborted."""
        self._kafka = kafka_address(kafka)
        self._topic = topic
        self._session_timeout_s = session_timeout_s
        self._listener: _Listener | None = None
        self._consumer = AIOKafkaConsumer(
            **client_options(kafka),
            group_id=group,
            client_id=client_id,
            enable_auto_commit=False,
            # Never jump by itself: where to go on is for the processor to say.
            auto_offset_reset="none",
            isolation_level="read_committed" if read_committed else "read_uncommitted",
            session_timeout_ms=int(session_timeout_s * 1000),
            heartbeat_interval_ms=int(session_timeout_s * 1000 / 5),
            metadata_max_age_ms=int(_METADATA_AGE_S * 1000),
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=512 * 1024,
        )
        self._reports = Reports(self._consumer)
        self._unanswered_since_s: float | None = None
        self._given_up = False

    async def start(self, assigned: Callable[[frozenset[int]], None], revoked: Callable[[], Awaitable[None]]) -> None:
        """See :class:`Source`."""
        self._listener = _Listener(self._hold, assigned, revoked)
        self._consumer.subscribe([self._topic], listener=self._listener)
        # The group waits for a member that has died until its session is over.
        async with self._answering("join", self._session_timeout_s + _CALL_S):
            await undisturbed(self._consumer.start())

    async def fetch(self, timeout_s: float) -> Mapping[int, Sequence[Consumed]]:
        """See :class:`Source`. Raises Unavailable, too, when this consumer gets no answers any more."""
        if self._given_up:
            raise self._unavailable(f"read any offset for {_UNANSWERED_S:g} s", TimeoutError())
        self._reports.send()
        try:
            async with asyncio.timeout(timeout_s + _FETCH_GRACE_S):
                fetched = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000))
        except TimeoutError:
            return {}  # a rebalance that takes its time
        except NoOffsetForPartitionError:
            # It looks for a position by itself as soon as it is assigned; the seek that follows gives it one.
            await asyncio.sleep(_UNPOSITIONED_S)
            return {}
        except OffsetOutOfRangeError as error:
            raise OutOfRange(frozenset(partition.partition for partition in error.args[0])) from error
        except KafkaError as error:
            raise self._unavailable("fetch", error) from error
        return {
            partition.partition: [
                Consumed(r.topic, r.partition, r.offset, r.timestamp, r.key or b"", r.value or b"") for r in records
            ]
            for partition, records in fetched.items()
        }

    def seek(self, partition: int, offset: int) -> None:
        """See :class:`Source`."""
        try:
            self._consumer.seek(self._at(partition), offset)
        except IllegalStateError as error:
            raise self._unavailable("seek", error) from error

    def pause(self, partition: int) -> None:
        """See :class:`Source`."""
        with suppress(IllegalStateError):  # not assigned: nothing is fetched
            self._consumer.pause(self._at(partition))

    def resume(self, partition: int) -> None:
        """See :class:`Source`."""
        with suppress(IllegalStateError):
            self._consumer.resume(self._at(partition))

    def last_end(self, partition: int) -> int | None:
        """See :class:`Source`."""
        at = self._at(partition)
        end: int | None = self._consumer.highwater(at) if at in self._consumer.assignment() else None
        return end

    async def committed(self, partition: int) -> int | None:
        """See :class:`Offsets`."""
        async with self._answering("read the committed offset", _CALL_S):
            found = await committed(self._consumer._coordinator, self._at(partition))
        return None if found is None else found.offset

    async def noted(self, topic: str, partition: int) -> tuple[int, str] | None:
        """See :class:`Offsets`."""
        at = TopicPartition(topic, partition)
        async with self._answering(f"read what is committed of {topic}", _CALL_S):
            return await committed(self._consumer._coordinator, at)

    async def beginning(self, partition: int) -> int:
        """See :class:`Offsets`."""
        async with self._answering("read the beginning", _CALL_S):
            offsets = await self._consumer.beginning_offsets([self._at(partition)])
        return int(offsets[self._at(partition)])

    async def end(self, partition: int) -> int:
        """See :class:`Offsets`."""
        async with self._answering("read the end", _CALL_S):
            offsets = await self._consumer.end_offsets([self._at(partition)])
        return int(offsets[self._at(partition)])

    async def at(self, partition: int, time_ms: int) -> int | None:
        """See :class:`Offsets`."""
        async with self._answering("look up a time", _CALL_S):
            offsets = await self._consumer.offsets_for_times({self._at(partition): max(time_ms, 0)})
        found = offsets[self._at(partition)]
        return None if found is None else int(found.offset)

    async def log(self, partition: int) -> int:
        """See :class:`Offsets`."""
        async with self._answering("read the topic's id", _CALL_S):
            identity = await topic_id(self._consumer._client, self._topic)
        return log_number(identity, partition)

    def report(self, partition: int, offset: int) -> None:
        """See :class:`Offsets`; what is reported goes out with a fetch, once a second."""
        self._reports.note(self._at(partition), offset)

    async def stop(self) -> None:
        """See :class:`Source`."""
        if self._listener is not None:
            self._listener.assigned = None
        stop = asyncio.create_task(self._leave())
        _stopping.add(stop)
        stop.add_done_callback(_stopping.discard)
        await asyncio.wait([stop], timeout=_STOP_S)
        if self._listener is not None:
            self._listener.revoked = None
        error = stop.exception() if stop.done() else None
        if not stop.done() or error is not None:
            # Not cancelled, or it would leave its fetcher behind. The group notices by itself when the session times
            # out.
            say = log.info if outages.is_down("kafka") else log.warning
            why = repr(error) if error is not None else f"no answer within {_STOP_S:g} s"
            say("consumer did not leave its group in order", topic=self._topic, error=why)

    async def _leave(self) -> None:
        await self._reports.settle()
        await self._consumer.stop()
        await self._reports.settle()

    def _hold(self, partitions: Collection[TopicPartition]) -> None:
        """Pause what was just assigned, at any position: as long as one partition has none, aiokafka 0.14 fetches
        nothing at all from its broker. What is on its way from the position that it took by itself is dropped by the
        next seek."""
        for partition in partitions:
            self._consumer.seek(partition, 0)
        self._consumer.pause(*partitions)

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    @asynccontextmanager
    async def _answering(self, what: str, deadline_s: float) -> AsyncIterator[None]:
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        try:
            async with asyncio.timeout(deadline_s):
                yield
        except (KafkaError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                if self._unanswered_since_s is None:
                    self._unanswered_since_s = began_s
                # One silence long ago, with nothing asked since, says nothing.
                self._given_up = now_s() - self._unanswered_since_s > _UNANSWERED_S
            raise self._unavailable(what, error) from error
        self._unanswered_since_s, self._given_up = None, False

    def _unavailable(self, what: str, error: Exception) -> Unavailable:
        reason = in_words(error, "Read")
        return Unavailable(
            f"Kafka at {self._kafka}, topic {self._topic}: cannot {what}: {reason}",
            retry_after_s=1.0,
            dependency="kafka",
        )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka calls it from the task that also sends the heartbeats, and they rest meanwhile: it must be quick."""

    def __init__(
        self,
        hold: Callable[[Collection[TopicPartition]], None],
        assigned: Callable[[frozenset[int]], None],
        revoked: Callable[[], Awaitable[None]],
    ) -> None:
        self._hold = hold
        self.assigned: Callable[[frozenset[int]], None] | None = assigned
        """None: an assignment that comes while the membership is being given up is nobody's."""
        self.revoked: Callable[[], Awaitable[None]] | None = revoked
        """None once it is given up: aiokafka's consumer lies in a cycle, and would never let go of who is told."""

    async def on_partitions_revoked(self, revoked: Any) -> None:
        if self.revoked is not None:
            await self.revoked()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        if self.assigned is None:
            return
        self._hold(assigned)
        self.assigned(frozenset(partition.partition for partition in assigned))
