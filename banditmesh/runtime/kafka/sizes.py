"""How large the messages are that each topic takes, as brokers show by refusing larger ones.

A topic's ``max.message.bytes`` limits a message, which is a batch of records. It may be lowered at any time, and a
Kafka user may not be permitted to see it. So it is found out: a message that was refused was too large, and the next
ones are made of fewer records; a record that was refused alone is not sent again. What was found is forgotten after a
while: the limit may have been raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from banditmesh.runtime.logging import get_logger

log = get_logger(__name__)

MAX_BATCH_BYTES: Final = 128 * 1024
"""Of a batch with several records. aiokafka's 16 KiB cost six times the CPU a record under load."""
MAX_RECORD_BYTES: Final = 200 * 1024
"""Key and value of one record; ``topic_check.MIN_MESSAGE_BYTES`` leaves room for it."""
ENVELOPE_BYTES: Final = 100
"""What a message has beside key and value of its record, at most: header of the batch 61, of the record 21."""
LEAST_BYTES: Final = 512
"""No message is made smaller: a dead letter that names its origin, and holds nothing of it, has as much where names are
as long as Kafka lets them be. Of a topic that refuses it nothing is given up: whatever has this size is tried again."""
REMEMBERED_S: Final = 600.0


@dataclass(frozen=True)
class _Limit:
    """``batch``: what a message with several records may have; ``record``: one with a single record."""

    batch: int
    record: int
    until_s: float


class MessageSizes:
    """What is known of the topics; one for all producers of a process."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._limits: dict[str, _Limit] = {}

    def batch_bytes(self, topic: str) -> int:
        """How large a message with several records may be."""
        limit = self._limit(topic)
        return MAX_BATCH_BYTES if limit is None else limit.batch

    def takes(self, topic: str, record_bytes: int) -> bool:
        """Whether a record, key and value, may be sent alone."""
        limit = self._limit(topic)
        return record_bytes <= (MAX_RECORD_BYTES if limit is None else limit.record - ENVELOPE_BYTES)

    def room(self, topic: str) -> int:
        """Key and value that a record should have which can be cut to any size: halved with each refusal, so that few
        are enough."""
        limit = self._limit(topic)
        if limit is None:
            return MAX_RECORD_BYTES
        return min(max(limit.record // 2, LEAST_BYTES // 2) - ENVELOPE_BYTES, MAX_RECORD_BYTES)

    def smallest_batch(self) -> int:
        """For a producer that has one size for all topics."""
        return min((self.batch_bytes(topic) for topic in list(self._limits)), default=MAX_BATCH_BYTES)

    def refused(self, topic: str, message_bytes: int, records: int) -> bool:
        """Note that a broker has refused a message.

        Returns:
            Whether anything else is worth an attempt: smaller messages, or a dead letter in the record's place.
        """
        known = self._limit(topic)
        batch, record = self.batch_bytes(topic), MAX_RECORD_BYTES + ENVELOPE_BYTES
        if known is not None:
            record = known.record
        if records > 1:
            batch = min(batch, message_bytes // 2)  # the same refusal, told by many, counts once
        else:
            record = max(min(record, message_bytes) - 1, LEAST_BYTES)
            batch = min(batch, record)
        self._limits[topic] = _Limit(batch, record, self._monotonic_s() + REMEMBERED_S)
        if known is None or (known.batch, known.record) != (batch, record):
            log.warning(
                "Kafka refuses a message because of its size; sending smaller ones",
                topic=topic,
                message_bytes=message_bytes,
                records=records,
                hint="raise max.message.bytes of the topic; records that fit in no message become dead letters",
            )
        return records > 1 or message_bytes > LEAST_BYTES

    def _limit(self, topic: str) -> _Limit | None:
        limit = self._limits.get(topic)
        if limit is not None and self._monotonic_s() >= limit.until_s:
            del self._limits[topic]
            return None
        return limit
