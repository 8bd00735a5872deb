"""Reactions to impressions that never came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.deadletters import Unreadable, dead_letter
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.stream import Consumed
from services.joiner.events import CONSUMER, ReadReaction, read_reaction
from services.joiner.ledger import Ledger, StoredReaction
from services.joiner.metrics import JoinerMetrics

log = get_logger(__name__)

AT_ONCE = 200


@dataclass(eq=False)
class Orphans:
    """Dead letters for the reactions of one partition whose impression was never tracked: all impressions that came up
    to token.max_age after them are closed."""

    partition: int
    transactions: TransactionalProducer
    ledger: Ledger
    topics: Topics
    max_age_ms: int
    every_s: float
    clock: Clock
    metrics: JoinerMetrics
    _due_s: float = 0.0

    def is_due(self) -> bool:
        """Whether it is time to look for some; once it has said so, not again for ``every_s``."""
        now_s = self.clock.monotonic_s()
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self.every_s
        return True

    async def report(self, closed_ms: int, has_read_all: Callable[[], Awaitable[bool]]) -> None:
        """Give up on those that nothing can come for any more.

        Args:
            closed_ms: Broker time up to which all impressions that were read are closed.
            has_read_all: Whether no impression waits to be read; asked only when there is somebody to give up on.
        """
        orphans = await self.ledger.unmatched(closed_ms - self.max_age_ms, AT_ONCE)
        if not orphans or not await has_read_all():
            return
        letters = [self._letter(each) for reactions in orphans.values() for each in reactions]
        if letters:
            await self.transactions.write(letters)
            self.metrics.transactions.inc()
        await self.ledger.forget_unmatched(list(orphans))
        self.metrics.dead_letters.labels(reason="impression_never_tracked").inc(len(letters))

    def _letter(self, stored: StoredReaction) -> Record:
        log.warning("reaction to an impression that was never tracked", partition=self.partition, offset=stored.offset)
        reaction = read_again(stored)
        user_id = "" if reaction is None else reaction.decision.user_id
        record = Consumed(
            self.topics.reactions, self.partition, stored.offset, stored.time_ms, user_id.encode(), stored.value
        )
        detail = (
            f"decision.impression_id {stored.impression_id.hex()}: no impression came within token.max_age, "
            f"{self.max_age_ms / 1000:g} s"
        )
        error = Unreadable("impression_never_tracked", detail)
        room = self.transactions.sizes.room(self.topics.dead_letters)
        return dead_letter(record, error, consumer=CONSUMER, topic=self.topics.dead_letters, most_bytes=room)


def read_again(stored: StoredReaction) -> ReadReaction | None:
    """The reaction that was stored; None where another release stored what cannot be read here."""
    try:
        return read_reaction(stored.offset, stored.time_ms, stored.value)
    except Unreadable:
        return None
