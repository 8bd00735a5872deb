"""A Redis that goes back by some seconds, or loses everything: examples stay exactly one an impression, late reactions
stay late ones, and only what was never tracked is given up on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.stream import Consumed
from tests.integration.joiner.harness import World, by_impression, click, decision, joined, joiner, mute, world
from tests.support.eventually import eventually
from tests.support.redis_past import Past, go_back, remember

N = 30


@pytest.fixture
async def mesh(kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path, max_age="3s") as here:
        yield here


@pytest.fixture
async def redis(fresh_redis: str) -> AsyncIterator[RedisClient]:
    here = RedisClient(fresh_redis, timeout_s=5.0)
    yield here
    await here.close()


def of_user(number: int) -> events_pb2.Decision:
    """Of one of two users, each in a partition of its own or both in one."""
    return decision(number, user=f"user-{number % 2}")


@pytest.mark.parametrize("loss", ["some seconds", "everything"])
async def test_a_second_copy_after_redis_has_lost_the_first_ones_mark_makes_no_second_example(
    mesh: World, redis: RedisClient, loss: str
) -> None:
    async with joiner(mesh.settings()):
        await mesh.show(of_user(0), of_user(1))
        await mesh.examples(2)
        past = await remember(redis) if loss == "some seconds" else Past({})
        shown = [of_user(number) for number in range(2, N)]
        await mesh.react(*map(click, shown))  # first, so that all are in time however slow this machine is
        await mesh.show(*shown)
        await mesh.examples(N)
        await go_back(redis, past)
        await mesh.show(*shown)
        await mesh.show(of_user(N), of_user(N + 1))
        found = by_impression(await mesh.examples(N + 2))
        await mesh.ticks_after(mesh.topics.examples, 3)
        assert by_impression(await mesh.examples(N + 2)) == found
    assert found.keys() == set(range(N + 2))
    assert {found[number].outcome for number in range(2, N)} == {events_pb2.OUTCOME_CLICK}


async def test_reactions_that_redis_evicts_while_the_progress_stays_are_in_their_examples(
    mesh: World, redis: RedisClient
) -> None:
    shown = [of_user(number) for number in range(N)]
    async with joiner(mesh.settings()) as server:
        await mesh.react(*map(click, shown))

        async def stored() -> list[bytes]:
            found = [key async for key in redis.client.scan_iter(match="*:r:*")]
            return found if len(found) == N else []

        await redis.client.delete(*await eventually(stored))
        await mesh.show(*shown)
        found = by_impression(await mesh.examples(N))
        assert server.registry.get_sample_value("banditmesh_joiner_reactions_lost_total") == N
    assert {each.outcome for each in found.values()} == {events_pb2.OUTCOME_CLICK}


async def test_after_a_loss_the_late_are_late_the_counted_are_neither_and_only_the_untracked_are_given_up_on(
    mesh: World, redis: RedisClient
) -> None:
    async with joiner(mesh.settings()):
        shown = [of_user(number) for number in range(N)]
        await mesh.react(*map(click, shown))
        await mesh.show(*shown)
        await mesh.examples(N)
        await redis.client.flushall()
        await mesh.react(*map(mute, shown[:4]), click(decision(999, user="user-0")))
        letters = await mesh.read(mesh.topics.dead_letters, lambda got: len(got) >= 1)
        await mesh.ticks_after(mesh.topics.examples, 3)
        letters = await mesh.read(mesh.topics.dead_letters, lambda got: len(got) >= 1)
        late = await mesh.read(mesh.topics.late_reactions, lambda got: len(got) >= 4)
    assert [events_pb2.DeadLetter.FromString(each.value).reason for each in letters] == ["impression_never_tracked"]
    assert events_pb2.Reaction.FromString(events_pb2.DeadLetter.FromString(letters[0].value).value) == click(
        decision(999, user="user-0")
    )
    assert sorted(each.value for each in late) == sorted(mute(each).SerializeToString() for each in shown[:4])


@pytest.mark.parametrize("loss", ["some seconds", "everything"])
async def test_late_reactions_that_redis_forgets_are_written_once_all_the_same(
    mesh: World, redis: RedisClient, loss: str
) -> None:
    shown = [of_user(number) for number in range(N)]
    async with joiner(mesh.settings()):
        await mesh.show(*shown)
        await mesh.examples(N)
        past = await remember(redis) if loss == "some seconds" else Past({})
        await mesh.react(*map(mute, shown))
        await mesh.read(mesh.topics.late_reactions, lambda got: len(got) >= N)
        await go_back(redis, past)
        await mesh.react(*map(click, shown[:2]))
        await mesh.read(mesh.topics.late_reactions, lambda got: len(got) >= N + 2)
        await mesh.ticks_after(mesh.topics.examples, 3)
        late = await mesh.read(mesh.topics.late_reactions, lambda got: len(got) >= N + 2)
    wanted = [*map(mute, shown), *map(click, shown[:2])]
    assert sorted(each.value for each in late) == sorted(each.SerializeToString() for each in wanted)


async def test_no_reaction_is_missing_in_a_users_record_after_redis_has_lost_it(
    mesh: World, redis: RedisClient
) -> None:
    shown = [decision(number, user="ann") for number in range(N)]
    async with joiner(mesh.settings()):
        await mesh.show(*shown)
        await mesh.react(*map(click, shown[: N // 2]))
        await mesh.examples(N)
        await redis.client.flushall()
        await mesh.react(*map(click, shown[N // 2 :]))

        async def counts() -> tuple[int, int] | None:
            record = await mesh.record("ann")
            found = record.count("clicks"), record.count("shown")
            return found if min(found) >= N else None

        assert await eventually(counts) == (N, N)


async def test_a_reaction_that_no_producer_could_write_again_is_given_up_on_and_the_partition_goes_on(
    mesh: World,
) -> None:
    huge = click(of_user(1))
    huge.decision.content_id = "x" * 300_000
    async with joiner(mesh.settings()):
        await mesh.show(of_user(1))
        await mesh.examples(1)
        await mesh.write_raw(mesh.topics.reactions, b"user-1", huge.SerializeToString())
        impression = events_pb2.Impression(schema_version=1, decision=huge.decision)
        await mesh.write_raw(mesh.topics.impressions, b"user-1", impression.SerializeToString())
        await mesh.react(click(of_user(3)))
        await mesh.show(of_user(3))

        def both(got: list[Consumed]) -> bool:
            return len(got) >= 2

        letters = [
            events_pb2.DeadLetter.FromString(each.value) for each in await mesh.read(mesh.topics.dead_letters, both)
        ]
        found = by_impression(joined(await mesh.read(mesh.topics.examples, lambda got: len(joined(got)) >= 2)))
    assert found[3].outcome == events_pb2.OUTCOME_CLICK
    assert {(each.topic, each.reason) for each in letters} == {
        (mesh.topics.reactions, "too_large"),
        (mesh.topics.impressions, "too_large"),
    }
    assert all("bytes of the record did not fit" in each.detail for each in letters)
