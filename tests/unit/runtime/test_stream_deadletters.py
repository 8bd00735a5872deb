"""What is kept of a record that cannot be understood."""

from __future__ import annotations

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.deadletters import Unreadable, dead_letter
from banditmesh.runtime.kafka.sizes import MAX_RECORD_BYTES
from banditmesh.runtime.stream import Consumed


def letter(record: Consumed, *, detail: str = "detail") -> tuple[int, events_pb2.DeadLetter]:
    sent = dead_letter(record, Unreadable("reason", detail), consumer="joiner", topic="dead-letters")
    assert (sent.topic, sent.partition) == ("dead-letters", record.partition)
    return len(sent.key) + len(sent.value), events_pb2.DeadLetter.FromString(sent.value)


def test_the_record_is_kept_as_it_was_with_its_origin_and_the_reason() -> None:
    _, kept = letter(Consumed("reactions", 3, 42, 1_700_000_000_000, b"ann", b"\xff\x00"))
    assert kept == events_pb2.DeadLetter(
        schema_version=1,
        topic="reactions",
        partition=3,
        offset=42,
        time_ms=1_700_000_000_000,
        key=b"ann",
        value=b"\xff\x00",
        consumer="joiner",
        reason="reason",
        detail="detail",
    )


def test_a_record_too_large_for_a_letter_is_cut_and_says_so() -> None:
    for key, value in ((1, 1_000_000), (500_000, 500_000)):
        size, kept = letter(Consumed("reactions", 0, 0, 0, b"k" * key, b"v" * value), detail="d" * 5000)
        assert size <= MAX_RECORD_BYTES
        cut = key + value - len(kept.key) - len(kept.value)
        assert f"{cut} bytes of the record did not fit" in kept.detail
