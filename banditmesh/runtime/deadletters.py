"""Records that cannot be understood: kept as they were, with where they came from and why, while the stream goes on."""

from __future__ import annotations

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.sizes import MAX_RECORD_BYTES
from banditmesh.runtime.stream import Consumed

SCHEMA_VERSION = 1
_MAX_DETAIL = 1000
_LENGTHS_BYTES = 100
"""Room for what says how long the parts are, and how much was cut."""
OUTGROWN = "outgrows_topic"
"""Reason of a letter about what came of a record, when its topic does not take that."""


class Unreadable(Exception):
    """A record that cannot be understood.

    ``reason`` is short and from a small set (it becomes a metric's label), ``detail`` says it in words, with field and
    value.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def dead_letter(
    record: Consumed, error: Unreadable, *, consumer: str, topic: str, most_bytes: int = MAX_RECORD_BYTES
) -> Record:
    """The dead letter of a record, for the same partition number, so that it can go into the transaction of that
    partition.

    A value that does not fit into ``most_bytes`` is cut; ``detail`` says so.
    """
    letter = events_pb2.DeadLetter(
        schema_version=SCHEMA_VERSION,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        time_ms=record.time_ms,
        consumer=consumer,
        reason=error.reason,
        detail=error.detail[: min(_MAX_DETAIL, most_bytes // 8)],
    )
    room = max(most_bytes - letter.ByteSize() - _LENGTHS_BYTES, 0)
    key = record.key[: room // 4]  # it stands there twice
    letter.key, letter.value = key, record.value[: room - 2 * len(key)]
    if cut := len(record.key) - len(key) + len(record.value) - len(letter.value):
        letter.detail += f"; {cut} bytes of the record did not fit in here"
    return Record(topic, key, letter.SerializeToString(deterministic=True), record.partition)
