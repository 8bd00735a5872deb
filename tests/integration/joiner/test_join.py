"""The joiner in this process, on a real Kafka and a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.local.valkey import Valkey
from banditmesh.runtime.stream import Consumed
from tests.integration.joiner.harness import (
    World,
    by_impression,
    click,
    decision,
    joined,
    joiner,
    mute,
    purchase,
    world,
)


@pytest.fixture
async def mesh(kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as here:
        yield here


def reactions(records: list[Consumed]) -> list[events_pb2.Reaction]:
    return [events_pb2.Reaction.FromString(record.value) for record in records]


async def test_each_impression_becomes_one_example_with_its_strongest_reaction(mesh: World) -> None:
    shown = [decision(i) for i in range(5)]
    async with joiner(mesh.settings()):
        await mesh.show(*shown)
        await mesh.react(
            click(shown[1]), mute(shown[2]), click(shown[2]), purchase(shown[3], weight=2.0), click(shown[3])
        )
        found = by_impression(await mesh.examples(5))
    assert [found[i].outcome for i in range(5)] == [
        events_pb2.OUTCOME_NONE,
        events_pb2.OUTCOME_CLICK,
        events_pb2.OUTCOME_MUTE,
        events_pb2.OUTCOME_TARGET,
        events_pb2.OUTCOME_NONE,
    ]
    assert [found[i].reward for i in range(5)] == [0.5, 1.0, 0.0, 6.0, 0.5]


async def test_a_reaction_that_comes_before_its_impression_counts(mesh: World) -> None:
    async with joiner(mesh.settings()):
        await mesh.react(click(decision(1)))
        await mesh.show(decision(1))
        assert (await mesh.examples(1))[0].joined.outcome == events_pb2.OUTCOME_CLICK


async def test_a_mute_after_the_window_is_late(mesh: World) -> None:
    shown = decision(1, placement="brief")
    async with joiner(mesh.settings()):
        (acked,) = await mesh.show(shown)
        await mesh.until_reactions_at(acked.timestamp_ms + 300)
        await mesh.react(mute(shown))
        (example,) = await mesh.examples(1)
        late = await mesh.read(mesh.topics.late_reactions, lambda got: len(got) >= 1)
    assert example.joined.outcome == events_pb2.OUTCOME_NONE
    assert [each.WhichOneof("kind") for each in reactions(late)] == ["mute"]


async def test_a_reaction_to_a_closed_impression_is_late(mesh: World) -> None:
    async with joiner(mesh.settings()):
        await mesh.show(decision(1))
        await mesh.examples(1)
        await mesh.react(click(decision(1)))
        late = await mesh.read(mesh.topics.late_reactions, lambda got: len(got) >= 1)
    assert [each.decision.impression_id for each in reactions(late)] == [decision(1).impression_id]


async def test_what_a_client_sends_twice_counts_once(mesh: World) -> None:
    shown = decision(1)
    async with joiner(mesh.settings()):
        await mesh.show(shown)
        await mesh.react(click(shown), click(shown))
        await mesh.show(shown)
        await mesh.examples(1)
        await mesh.show(shown)
        await mesh.react(click(shown))
        await mesh.show(decision(2, user=shown.user_id))  # behind all of it in the same partitions
        found = by_impression(await mesh.examples(2))
    assert found.keys() == {1, 2}


async def test_records_that_cannot_be_understood_become_dead_letters_and_the_rest_goes_on(mesh: World) -> None:
    unreadable = {
        b"\xff\xff": "not_a_protobuf",
        events_pb2.Reaction(decision=decision(1), click=events_pb2.Click()).SerializeToString(): "no_schema_version",
        events_pb2.Reaction(schema_version=1, click=events_pb2.Click()).SerializeToString(): "no_decision",
        events_pb2.Reaction(schema_version=2, decision=decision(1)).SerializeToString(): "no_kind",
        purchase(decision(1), weight=float("nan")).SerializeToString(): "bad_weight",
    }
    async with joiner(mesh.settings()):
        for value in unreadable:
            await mesh.producer.send(mesh.topics.reactions, b"user", value)
        await mesh.producer.send(mesh.topics.impressions, b"user", b"\x08\xff")
        await mesh.producer.send(
            mesh.topics.impressions, b"user", events_pb2.Impression(schema_version=1).SerializeToString()
        )
        await mesh.react(click(decision(1, user="user")))
        await mesh.show(decision(1, user="user"))
        (example,) = await mesh.examples(1)
        records = await mesh.read(mesh.topics.dead_letters, lambda got: len(got) >= 7)
    assert example.joined.outcome == events_pb2.OUTCOME_CLICK
    letters = [events_pb2.DeadLetter.FromString(record.value) for record in records]
    by_topic = {topic: [each for each in letters if each.topic == topic] for topic in mesh.topics}
    assert {each.value: each.reason for each in by_topic[mesh.topics.reactions]} == unreadable
    assert [each.reason for each in by_topic[mesh.topics.impressions]] == ["not_a_protobuf", "no_decision"]
    assert {(each.key, each.consumer) for each in letters} == {(b"user", "joiner")}


async def test_a_reaction_to_an_impression_that_was_never_tracked_becomes_a_dead_letter(
    kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    async with (
        world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path, max_age="1s") as mesh,
        joiner(mesh.settings()),
    ):
        await mesh.react(click(decision(1)), click(decision(2)))
        await mesh.show(decision(2))
        await mesh.examples(1)
        records = await mesh.read(mesh.topics.dead_letters, lambda got: len(got) >= 1)
        await mesh.ticks_after(mesh.topics.examples, 3)
        records = await mesh.read(mesh.topics.dead_letters, lambda got: len(got) >= 1)
    (letter,) = [events_pb2.DeadLetter.FromString(record.value) for record in records]
    assert letter.reason == "impression_never_tracked"
    assert events_pb2.Reaction.FromString(letter.value) == click(decision(1))


async def test_replaying_the_topics_gives_the_same_examples_byte_for_byte(mesh: World, valkey: Valkey) -> None:
    shown = [decision(i) for i in range(60)]

    async def values(n: int) -> list[bytes]:
        records = await mesh.read(mesh.topics.examples, lambda got: len(joined(got)) >= n)
        return sorted(record.value for record in records if joined([record]))

    async with joiner(mesh.settings()):
        await mesh.show(*shown)
        await mesh.react(*map(click, shown[::2]), *map(mute, shown[::3]), *map(purchase, shown[::5]))
        await mesh.show(*shown[:10])
        first = await values(60)
        await mesh.ticks_after(mesh.topics.examples)
    valkey.command("FLUSHALL")
    await mesh.rewind()
    async with joiner(mesh.settings()):
        both = await values(120)
    assert both == sorted(first + first)


async def test_after_redis_has_lost_everything_the_joiner_goes_on(mesh: World, valkey: Valkey) -> None:
    before = [decision(i) for i in range(20)]
    after = [decision(i) for i in range(20, 40)]
    async with joiner(mesh.settings()):
        await mesh.react(*map(click, before))  # first, so that it is in time however slow this machine is
        await mesh.show(*before)
        await mesh.examples(20)
        await mesh.react(*map(click, after[:10]))
        await mesh.show(*after[:10])
        valkey.command("FLUSHALL")
        await mesh.react(*map(click, after[10:]))
        await mesh.show(*after[10:])
        found = by_impression(await mesh.examples(40))
    assert {each.outcome for each in found.values()} == {events_pb2.OUTCOME_CLICK}


async def test_the_join_works_on_a_redis_cluster(
    kafka: Kafka, fresh_redis_cluster: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    shown = [decision(i) for i in range(20)]
    async with (
        world(kafka.bootstrap, fresh_redis_cluster, fresh_topic_prefix, tmp_path) as mesh,
        joiner(mesh.settings()),
    ):
        await mesh.react(*map(click, shown[:10]))
        await mesh.show(*shown)
        found = by_impression(await mesh.examples(20))
    assert {i for i, each in found.items() if each.outcome == events_pb2.OUTCOME_CLICK} == set(range(10))


async def test_a_placement_that_is_not_configured_any_more_gets_the_default_rewards(mesh: World) -> None:
    shown = decision(1, placement="gone")
    async with joiner(mesh.settings()):
        await mesh.show(shown)
        await mesh.react(click(shown))
        (example,) = await mesh.examples(1)
    assert (example.joined.outcome, example.joined.reward) == (events_pb2.OUTCOME_CLICK, 1.0)
