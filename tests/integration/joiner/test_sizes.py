"""Topics that take less than they did: what cannot be written becomes a dead letter, and the partition goes on."""

from __future__ import annotations

from pathlib import Path

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.deadletters import OUTGROWN
from banditmesh.runtime.stream import Consumed
from tests.integration.joiner.harness import by_impression, click, decision, joined, joiner, mute, world
from tests.support.eventually import eventually_so
from tests.support.topic_settings import set_most_bytes

N = 30


def large(number: int) -> events_pb2.Decision:
    """A decision that makes records of some 3 KiB."""
    decided = decision(number, user="ann")
    decided.content_id = "x" * 3000
    return decided


async def test_where_not_even_a_dead_letter_fits_the_partition_waits_and_loses_nothing(
    kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    async with (
        world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path, partitions=1) as mesh,
        joiner(mesh.settings()) as server,
    ):
        topics = mesh.topics
        await set_most_bytes(kafka.bootstrap, 1000, topics.examples, topics.dead_letters, unread=topics.decisions)
        await mesh.show(large(0), decision(1))  # below 1 KiB it goes on yet
        (letter,) = await mesh.read(topics.dead_letters, lambda got: len(got) >= 1)
        await mesh.examples(1)

        await set_most_bytes(kafka.bootstrap, 200, topics.dead_letters, unread=topics.decisions)
        await mesh.show(large(2), decision(3))
        labels = {"stream": "impressions", "reason": "FailedPrecondition"}
        await eventually_so(
            lambda: (server.registry.get_sample_value("banditmesh_stream_restarts_total", labels) or 0) >= 2
        )
        await set_most_bytes(kafka.bootstrap, 1000, topics.dead_letters, unread=topics.decisions)
        read = await mesh.read(topics.dead_letters, lambda got: len(got) >= 2)
        assert by_impression(await mesh.examples(2)).keys() == {1, 3}
    letters = [events_pb2.DeadLetter.FromString(each.value) for each in read]
    assert [(each.topic, each.reason) for each in letters] == [(topics.impressions, OUTGROWN)] * 2
    assert letters[0] == events_pb2.DeadLetter.FromString(letter.value)


async def test_what_outgrows_its_topic_becomes_a_dead_letter_that_fits_and_the_partition_goes_on(
    kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    async with (
        world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as mesh,
        joiner(mesh.settings()),
    ):
        await mesh.show(decision(0, user="ann"))
        await mesh.examples(1)
        topics = mesh.topics
        limited = (topics.examples, topics.late_reactions, topics.dead_letters)
        await set_most_bytes(kafka.bootstrap, 2048, *limited, unread=topics.decisions)
        late = large(0)
        await mesh.react(mute(late))
        (shown, *_) = await mesh.show(large(1), *(decision(number, user="ann") for number in range(2, N)))
        await mesh.write_raw(topics.reactions, b"ann", b"\xff" * 3000)
        found = by_impression(await mesh.examples(N - 1))

        def all_three(got: list[Consumed]) -> bool:
            return len(got) >= 3

        read = await mesh.read(topics.dead_letters, all_three)
        await mesh.react(click(decision(0, user="ann")))
        await mesh.read(topics.late_reactions, lambda got: len(got) >= 1)
        await mesh.show(decision(N, user="ann"))
        assert len(joined(await mesh.read(topics.examples, lambda got: len(joined(got)) >= N))) == N
    letters = {(each.topic, each.reason): each for each in (events_pb2.DeadLetter.FromString(r.value) for r in read)}
    assert found.keys() == {0, *range(2, N)}
    assert letters.keys() == {
        (topics.impressions, OUTGROWN),
        (topics.reactions, OUTGROWN),
        (topics.reactions, "not_a_protobuf"),
    }
    assert letters[topics.impressions, OUTGROWN].offset == shown.offset
    assert mute(late).SerializeToString().startswith(letters[topics.reactions, OUTGROWN].value)
    assert all(each.key == b"ann" and "did not fit" in each.detail for each in letters.values())
