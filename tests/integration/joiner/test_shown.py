"""What was shown comes into the users' records within a second, once, whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.user_record import SHOWN
from tests.integration.joiner.harness import World, decision, joiner, joiner_process, world
from tests.support.eventually import eventually

USERS = 10


@pytest.fixture
async def mesh(kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path) -> AsyncIterator[World]:
    # A long window: what is shown must not wait for it.
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path, window="10m") as here:
        yield here


def of_user(number: int) -> events_pb2.Decision:
    """One of the impressions of :data:`USERS` users."""
    return decision(number, user=f"user-{number % USERS}")


async def shown(mesh: World, n: int) -> list[int]:
    """How often each user was shown something, as soon as there are ``n`` impressions in all."""

    async def counts() -> list[int] | None:
        found = (await mesh.records([f"user-{number}" for number in range(USERS)])).shown
        return found.tolist() if found.sum() >= n else None

    return await eventually(counts)


async def test_what_was_shown_is_in_the_users_record_long_before_the_join(mesh: World) -> None:
    async with joiner(mesh.settings()):
        await mesh.show(*(of_user(number) for number in range(40)))
        assert await shown(mesh, 40) == [4] * USERS
        contents = (await mesh.record("user-3")).entries(SHOWN)["content"].tolist()
    assert contents == [content_key("films", f"film-{number}") for number in (33, 23, 13, 3)]


async def test_what_a_client_sends_twice_was_shown_once(mesh: World) -> None:
    async with joiner(mesh.settings()):
        both = [of_user(number) for number in range(20)]
        await mesh.show(*both, *both)
        await mesh.show(*both)
        await mesh.show(*(of_user(number) for number in range(20, 20 + USERS)))
        assert await shown(mesh, 30) == [3] * USERS


async def test_every_impression_is_counted_once_though_two_joiners_are_killed_and_one_sleeps(
    mesh: World, tmp_path: Path
) -> None:
    n = 600
    impressions = [of_user(number) for number in range(n)]
    with joiner_process(mesh, tmp_path / "a.log") as first, joiner_process(mesh, tmp_path / "b.log") as second:
        await mesh.show(*impressions[:200])
        await shown(mesh, 50)
        first.kill()
        await mesh.show(*impressions[200:300])
        await shown(mesh, 210)
        second.suspend()
        await mesh.show(*impressions[300:400])
        with joiner_process(mesh, tmp_path / "c.log") as third:
            await shown(mesh, 350)
            second.wake()
            await mesh.show(*impressions[400:500])
            await shown(mesh, 410)
            third.kill()
            await mesh.show(*impressions[500:])
            with joiner_process(mesh, tmp_path / "d.log"):
                assert await shown(mesh, n) == [n // USERS] * USERS
