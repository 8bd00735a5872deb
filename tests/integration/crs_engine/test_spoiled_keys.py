"""Keys that hold something else: whoever they belong to gets what is left, all others what they would have got."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from banditmesh.bandits.hashing import content_key
from banditmesh.runtime import keys
from banditmesh.runtime.packing import LiveVersion
from tests.support.engine_world import World, engine_world
from tests.support.spoiled import of_another_type

MESH = """
services:
  weather: {logics: [today]}
  comics: {logics: [new]}
placements:
  head:
    sources: [weather/today, comics/new]
    filters: {frequency_cap: {shown: 9, days: 2}}
    features: {profile: [age], state: [feedback, clicks, shown, shown_today], content: [service, genre]}
    cache: {max_age: 1m}
    fallback: [newest]
    experiment:
      variants: {learned: {weight: 1, policy: {linucb: {arm: logic}}, explore: {greedy: {}}}}
engine: {redis_timeout: 2s}
"""
USER = keys.user_tag("ann")
SOURCE = "weather/today"
NAMES = [
    keys.live(SOURCE),
    keys.live(keys.PROFILES),
    keys.candidates(USER, SOURCE, 0),
    keys.profile(USER, 0),
    keys.state(USER),
    keys.ranked(USER, "head"),
    keys.content(content_key("weather", "rain")),
    keys.known_contents("weather"),
    keys.CHANGES,
]
_HEAD = struct.pack("<BB5xc", 2, 2, b"\xb5")
VALUES = {
    "nothing": b"",
    "short": b"7",
    "garbage": b"\xff\x00:\xfe",
    "10 MB": b"\xff" * 10_000_000,
    "a slot that is none": b"9:7:3:what only a newer release knows",
    "of this version, then garbage": b"\x01\x00\x00\x00" + b"\xff" * 101,
    "a record of broken sections": _HEAD + struct.pack("<BBHBBH", 1, 1, 3, 2, 1, 7) + b"x" * 10,
    "a newer record": struct.pack("<BB5xc", 9, 1, b"\xb5") + b"y" * 40,
    "a content of no name": b"\xff\xff",
    "a vector that is cut": b"\x07\x80weather\xff\x7fxx",
}


@pytest.fixture
async def world(fresh_redis: str, tmp_path: Path) -> AsyncIterator[World]:
    async with engine_world(fresh_redis, tmp_path, mesh=MESH) as here:
        await here.hands.profiles({"ann": {"age": "20s"}, "bob": {"age": "30s"}})
        rain = await here.hands.content("weather", "rain", genre="alert")
        sun = await here.hands.content("weather", "sun", genre="fun")
        await here.hands.mapping(SOURCE, {"ann": [rain], "bob": [sun]})
        await here.parts.live.reread()
        yield here


async def holding(redis: Any, key: str, value: bytes) -> None:
    """Let a key, or one more member of it, hold a value."""
    kind = keys.kind(key)
    if kind == "string":
        await redis.set(key, value)
    elif kind == "set":
        await redis.sadd(key, value)
    else:
        named = {"kind": "live", "source": SOURCE, "version": b"9", "slot": value}
        for fields in (named, {**named, "version": value}, {"kind": "content", "keys": value}, {"kind": value}):
            await redis.xadd(key, fields)


async def serves(world: World) -> None:
    """All get an answer; who is not concerned gets what is theirs; and what is written from now on is seen."""
    world.parts.catalog.mark_changed()
    await world.parts.live.try_reread()
    for user in ("ann", "bob", "ann"):
        await world.select(user)
    await world.explain("ann")
    snow = await world.hands.content("weather", "snow")
    await world.hands.mapping(SOURCE, {"cat": [snow]})
    await world.shows("cat", lambda selection: selection.content.content.content_id == "snow")


@pytest.mark.parametrize("name", NAMES)
async def test_a_key_of_another_type_stops_nobody(world: World, name: str) -> None:
    await world.select("ann")
    await of_another_type(world.hands.store.client, name)
    if name == keys.CHANGES:  # the importer, too, puts aside what it cannot write to
        aside = "banditmesh_redis_put_aside_total"
        await world.shows("bob", lambda _: world.server.registry.get_sample_value(aside) == 1)
    await serves(world)


@pytest.mark.parametrize("value", VALUES.values(), ids=list(VALUES))
async def test_values_that_cannot_be_read_stop_nobody(world: World, value: bytes) -> None:
    await world.select("ann")
    for name in NAMES:
        await holding(world.hands.store.client, name, value)
    await serves(world)


@pytest.mark.parametrize("pointer", [b"0:0:x", b"4294967296:0:x", b"1:2:x", b"1:-1:x", b"-1:0:x", b"1:0", b""])
def test_a_pointer_to_what_cannot_be_a_version_is_none(pointer: bytes) -> None:
    with pytest.raises(ValueError, match=r"version|int|unpack"):
        LiveVersion.unpack(pointer)
