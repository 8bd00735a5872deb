"""What is learned of a topic whose messages must be smaller than they are."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.deadletters import Unreadable, dead_letter
from banditmesh.runtime.kafka.sizes import (
    ENVELOPE_BYTES,
    LEAST_BYTES,
    MAX_BATCH_BYTES,
    MAX_RECORD_BYTES,
    REMEMBERED_S,
    MessageSizes,
)
from banditmesh.runtime.stream import Consumed

LONGEST_NAME = 249
"""That Kafka lets a topic have."""


def written(sizes: MessageSizes, records: list[int], limit: int) -> tuple[list[int], int]:
    """What a topic with a limit has in the end of records with these sizes, and how many messages it has refused."""
    refusals = 0
    while True:
        batches: list[list[int]] = []
        for record in filter(lambda record: sizes.takes("examples", record), records):
            if not batches or sum(batches[-1]) + record > sizes.batch_bytes("examples"):
                batches.append([])
            batches[-1].append(record)
        refused = next((each for each in batches if sum(each) + ENVELOPE_BYTES > limit), None)
        if refused is None:
            return [record for batch in batches for record in batch], refusals
        refusals += 1
        assert sizes.refused("examples", sum(refused) + ENVELOPE_BYTES, len(refused))


@pytest.mark.parametrize("limit", [2_000, 6_000, 50_000, 100_000, 1_000_000])
def test_everything_that_fits_is_written_after_a_few_refusals(limit: int) -> None:
    records = [300, 1_800, 1_900, 400, 5_000, 700] * 80
    fitting = [record for record in records if record + ENVELOPE_BYTES <= limit]
    found, refusals = written(MessageSizes(), records, limit)
    assert found == fitting
    assert refusals <= 10


def test_one_refusal_that_many_hear_of_counts_once() -> None:
    sizes = MessageSizes()
    for _ in range(50):
        sizes.refused("examples", 100_000, 9)
    assert sizes.batch_bytes("examples") == 50_000


def test_of_other_topics_nothing_is_learned() -> None:
    sizes = MessageSizes()
    sizes.refused("examples", 50_000, 9)
    sizes.refused("examples", 5_000, 1)
    assert sizes.batch_bytes("examples") < 5_000 < sizes.batch_bytes("late-reactions") == MAX_BATCH_BYTES
    assert (sizes.takes("examples", 5_000), sizes.takes("late-reactions", 5_000)) == (False, True)
    assert sizes.smallest_batch() == sizes.batch_bytes("examples")


async def test_what_was_learned_is_forgotten_as_the_limit_may_have_been_raised() -> None:
    clock = ManualClock()
    sizes = MessageSizes(clock.monotonic_s)
    sizes.refused("examples", 5_000, 1)
    await clock.advance(REMEMBERED_S - 1)
    assert not sizes.takes("examples", 5_000)
    await clock.advance(1)
    assert sizes.takes("examples", MAX_RECORD_BYTES)
    assert sizes.batch_bytes("examples") == MAX_BATCH_BYTES


def test_what_a_topic_refuses_that_takes_next_to_nothing_is_tried_again_and_said_once() -> None:
    sizes = MessageSizes()
    with capture_logs() as said:
        assert [sizes.refused("examples", LEAST_BYTES, 1) for _ in range(3)] == [False] * 3
    assert [each["topic"] for each in said] == ["examples"]
    assert sizes.takes("examples", LEAST_BYTES - ENVELOPE_BYTES)


@pytest.mark.parametrize("limit", [LEAST_BYTES, 1_000, 3_000, 100_000])
@pytest.mark.parametrize("topic", ["t-reactions", "t" * LONGEST_NAME], ids=["short", "longest"])
def test_a_dead_letter_is_cut_until_its_topic_takes_it_and_names_its_origin(limit: int, topic: str) -> None:
    sizes = MessageSizes()
    record = Consumed(topic, 2**31 - 1, 2**63 - 1, 2**43, b"ann" * 40, b"v" * 180_000)
    for _ in range(12):
        room = sizes.room("t-dead-letters")
        said = Unreadable("impression_never_tracked", "detail " * 400)
        sent = dead_letter(record, said, consumer="joiner", topic="t-dead-letters", most_bytes=room)
        assert sizes.takes(sent.topic, sent.size)
        if sent.size + ENVELOPE_BYTES <= limit:
            break
        sizes.refused(sent.topic, sent.size + ENVELOPE_BYTES, 1)
    letter = events_pb2.DeadLetter.FromString(sent.value)
    assert sent.size + ENVELOPE_BYTES <= limit
    origin = (letter.topic, letter.partition, letter.offset, letter.time_ms)
    assert origin == (record.topic, record.partition, record.offset, record.time_ms)
    assert "bytes of the record did not fit" in letter.detail
