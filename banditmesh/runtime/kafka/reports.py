"""Positions that are shown to people: committed to a consumer group in which nothing is decided by them, so that
``kafka-consumer-groups.sh``, KEDA and Burrow see how far a reader is."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from banditmesh.runtime.logging import get_logger

log = get_logger(__name__)

_EVERY_S = 1.0
_DEADLINE_S = 10.0


class Reports:
    """Commits the newest position of each partition, once a second at most, beside the reading."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._waiting: dict[TopicPartition, int] = {}
        self._sending: asyncio.Task[None] | None = None

    def note(self, at: TopicPartition, offset: int) -> None:
        """The reader has come to an offset."""
        self._waiting[at] = offset

    def send(self) -> None:
        """Send what was noted, unless that is under way, or was a moment ago. Returns at once and raises nothing."""
        if self._waiting and (self._sending is None or self._sending.done()):
            self._sending = asyncio.create_task(self._commit(), name="report positions")

    def stop(self) -> None:
        """Send nothing more."""
        if self._sending is not None:
            self._sending.cancel()

    async def _commit(self) -> None:
        noted, self._waiting = self._waiting, {}
        assigned = self._consumer.assignment()
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await self._consumer.commit({at: offset for at, offset in noted.items() if at in assigned})
        except (KafkaError, TimeoutError) as error:
            # Also a partition that has just been given to another member, which reports for itself.
            log.debug("positions not reported to the group", error=repr(error))
        await asyncio.sleep(_EVERY_S)
