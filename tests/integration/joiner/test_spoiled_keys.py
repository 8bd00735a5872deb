"""Keys of the joiner that hold something else: another type, nothing, half a value, 10 MB, what a newer release wrote.

Whatever stands there, every impression becomes one example, and the partition goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.serve import Server
from tests.integration.joiner.harness import World, by_impression, click, decision, joined, joiner, world
from tests.support.spoiled import of_another_type

VALUES = {
    "nothing": b"",
    "half": b"12",
    "garbage": b"\xff\x00:\xfe:",
    "10 MB": b"\xff" * 10_000_000,
}
WINDOW_MS = 300
"""Shorter than that of other tests: each spoiling waits for one to end, and there are dozens of them."""
BETWEEN = 100
"""Numbers of impressions that one spoiling has for itself."""


@pytest.fixture
async def mesh(kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(
        kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path, partitions=1, window=f"{WINDOW_MS}ms"
    ) as here:
        yield here


@pytest.fixture
async def store(mesh: World) -> AsyncIterator[RedisClient]:
    redis = RedisClient(mesh.redis, timeout_s=5.0)
    yield redis
    await redis.close()


async def newer(client: Any, key: str) -> None:
    """Let what stands under a key end with what only a newer release writes there."""
    if keys.kind(key) == "string":
        await client.append(key, b":what only a newer release knows")
    elif keys.kind(key) == "hash":
        for field, value in (await client.hgetall(key)).items():
            await client.hset(key, field, value + b"\xff")
    else:
        for member, score in await client.zrange(key, 0, -1, withscores=True):
            await client.zrem(key, member)
            await client.zadd(key, {member + b"\xff": score})


async def holding(client: Any, key: str, value: bytes) -> None:
    """Let a key, or one more member of it, hold a value."""
    if keys.kind(key) == "string":
        await client.set(key, value)
    elif keys.kind(key) == "hash":
        await client.hset(key, value[:100] or b"empty", value)
    else:
        await client.zadd(key, {value: 0})


async def passes(mesh: World, first: int, before: list[events_pb2.Decision]) -> None:
    """Impressions that came before the spoiling, and some after it, become an example each."""
    shown = [*before, *(decision(first + i) for i in range(10, 14))]
    *_, last = await mesh.show(*shown[len(before) :])
    (clicked,) = await mesh.react(click(shown[-1]))
    wanted = {int.from_bytes(each.impression_id, "big") for each in shown}

    def all_there(got: list[Any]) -> bool:
        return wanted <= {int.from_bytes(each.joined.decision.impression_id, "big") for each in joined(got)}

    found = by_impression(joined(await mesh.read(mesh.topics.examples, all_there)))
    in_time = clicked.timestamp_ms <= last.timestamp_ms + WINDOW_MS
    outcome = events_pb2.OUTCOME_CLICK if in_time else events_pb2.OUTCOME_NONE
    assert found[first + 13].outcome == outcome


def names(first: int) -> list[str]:
    """Every key that the joiner has of a partition, of an impression and of its user."""
    shown = decision(first)
    return [
        *(keys.join_progress(0, stream) for stream in ("reactions", "marks", "shown")),
        keys.unmatched(0),
        keys.late(0),
        keys.reactions(0, shown.impression_id),
        keys.closed(0, shown.impression_id),
        keys.state(keys.user_tag(shown.user_id)),
    ]


async def walk(mesh: World, store: RedisClient, spoil: Any) -> Server:
    """Spoil each key in turn under a running joiner."""
    async with joiner(mesh.settings()) as server:
        for at in range(len(names(0))):
            first = BETWEEN * at
            shown = decision(first)
            await mesh.show(shown)
            await mesh.react(click(shown))
            await spoil(names(first)[at])
            await passes(mesh, first, [shown])
    return server


async def test_a_key_of_another_type_stops_nobody(mesh: World, store: RedisClient) -> None:
    async def spoil(key: str) -> None:
        await of_another_type(store.client, key)

    server = await walk(mesh, store, spoil)
    assert (server.registry.get_sample_value("banditmesh_redis_put_aside_total") or 0) >= 5
    kept = {key.decode() async for key in store.client.scan_iter(match="aside:*")}
    assert keys.aside(keys.late(0)) in kept


@pytest.mark.parametrize("value", VALUES)
async def test_a_value_that_cannot_be_read_stops_nobody(mesh: World, store: RedisClient, value: str) -> None:
    async def spoil(key: str) -> None:
        await holding(store.client, key, VALUES[value])

    await walk(mesh, store, spoil)


async def test_what_a_newer_release_adds_stops_nobody(mesh: World, store: RedisClient) -> None:
    async def spoil(key: str) -> None:
        if await store.client.exists(key):
            await newer(store.client, key)

    await walk(mesh, store, spoil)


async def test_a_joiner_starts_where_every_key_is_spoiled(mesh: World, store: RedisClient) -> None:
    shown = [decision(number) for number in range(len(VALUES) + 1)]
    await mesh.show(*shown)
    await mesh.react(*map(click, shown))
    for number, value in enumerate(VALUES.values()):
        for key in names(number):
            await holding(store.client, key, value)
    for key in names(len(VALUES)):
        await of_another_type(store.client, key)
    async with joiner(mesh.settings()):
        await asyncio.wait_for(passes(mesh, BETWEEN, shown), 60)
