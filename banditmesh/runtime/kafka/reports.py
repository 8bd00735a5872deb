"""Positions that are shown to people: committed to a consumer group in which nothing is decided by them, so that
``kafka-consumer-groups.sh``, KEDA and Burrow see how far a reader is."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError

from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.refusals import in_words
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import Work, outages

log = get_logger(__name__)

_EVERY_S = 1.0
_DEADLINE_S = 1.0
"""What a report that is under way at the end gets; it has been sent, and what fails is not missed."""


class Reports:
    """Commits the newest position of each partition, once a second at most, beside the reading."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._waiting: dict[TopicPartition, int] = {}
        self._sending: asyncio.Task[None] | None = None
        self._next_s = 0.0
        self._refused: Work | None = None
        """Reporting, once it was refused."""

    def note(self, at: TopicPartition, offset: int) -> None:
        """The reader has come to an offset."""
        self._waiting[at] = offset

    def send(self) -> None:
        """Send what was noted, unless that is under way, or was a moment ago. Returns at once and raises nothing."""
        now_s = asyncio.get_running_loop().time()
        if self._waiting and now_s >= self._next_s and (self._sending is None or self._sending.done()):
            self._next_s = now_s + _EVERY_S
            self._sending = asyncio.create_task(self._commit(), name="report positions")

    async def settle(self) -> None:
        """Let what is under way end, for a second at most; it is never cancelled: a commit of aiokafka 0.14 that is
        leaves a task behind, whose exception nobody retrieves.

        Call it before the consumer is stopped, or a connection that the commit is just opening stays open, and once
        more after it: without a broker, the commit ends only then.
        """
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=_DEADLINE_S)

    async def _commit(self) -> None:
        noted, self._waiting = self._waiting, {}
        assigned = self._consumer.assignment()
        ours = {at: offset for at, offset in noted.items() if at in assigned}
        if not ours:
            return  # they were given to other members meanwhile
        try:
            await self._consumer.commit(ours)
        except GroupAuthorizationFailedError as error:  # nothing but the report waits for it
            self._refused = self._refused or outages.work(f"report of positions to group {error.args[0]}")
            self._refused.failed(Unavailable(in_words(error, "Read")))
        except KafkaError as error:
            # Also a partition that has just been given to another member, which reports for itself.
            log.debug("positions not reported to the group", error=repr(error))
        else:
            if self._refused is not None:
                self._refused.well()
