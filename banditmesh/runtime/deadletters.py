"""Records that cannot be understood: kept as they were, with where they came from and why, while the stream goes on."""

from __future__ import annotations

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.kafka.producer import MAX_RECORD_BYTES, Record
from banditmesh.runtime.stream import Consumed

SCHEMA_VERSION = 1
_MAX_DETAIL = 1000
_ENVELOPE_BYTES = 8 * 1024
"""Room for everything of a dead letter but the record's key and value."""


class Unreadable(Exception):
    """A record that cannot be understood.

    ``reason`` is short and from a small set (it becomes a metric's label), ``detail`` says it in words, with field and
    value.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def dead_letter(record: Consumed, error: Unreadable, *, consumer: str, topic: str) -> Record:
    """The dead letter of a record, for the same partition number, so that it can go into the transaction of that
    partition.

    A value that is larger than a producer may send is cut; ``detail`` says so.
    """
    room = MAX_RECORD_BYTES - _ENVELOPE_BYTES
    key = record.key[: room // 4]
    value = record.value[: room - 2 * len(key)]
    cut = len(record.key) - len(key) + len(record.value) - len(value)
    detail = error.detail[:_MAX_DETAIL] + (f"; {cut} bytes of the record did not fit in here" if cut else "")
    letter = events_pb2.DeadLetter(
        schema_version=SCHEMA_VERSION,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        time_ms=record.time_ms,
        key=key,
        value=value,
        consumer=consumer,
        reason=error.reason,
        detail=detail,
    )
    return Record(topic, key, letter.SerializeToString(deterministic=True), record.partition)
