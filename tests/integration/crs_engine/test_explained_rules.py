"""``ExplainDecision`` says of every rule what it did and why, over the socket; also of scores from the cache."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from banditmesh.bandits import hashing
from banditmesh.runtime import keys
from banditmesh.runtime.user_record import UserRecord
from tests.support.engine_world import World, engine_world
from tests.support.eventually import eventually

RULES = {
    "cap_per_service": ("most: 1", "the list has 1 of comics before it, and cap_per_service allows 1"),
    "cap_per_attribute": ("attribute: genre, most: 1", "the list has 1 of genre=drama before it"),
    "quota": ("of: {service: weather}, at_least: 1, first: 1", "the positions that are left are owed to it"),
    "pin": ("of: {content: comics/c}, position: 0", "position 0 is pinned to comics/c"),
    "boost": ("of: {content: comics/c}, by: 0.5", "boost of comics/c"),
    "bury": ("of: {attribute: genre, values: [drama]}, by: 0.5", "bury of contents with genre=drama"),
    "diversity": ("attribute: genre, penalty: 0.5", "it shares genre with what stands before it"),
    "spread": ("attribute: genre, apart: 2", "one of the 1 before it has the same genre"),
    "blackout": ("hours: '00:00-24:00', of: {content: comics/a}", "for the user, and blackout is 00:00-24:00"),
    "country": ("only: [JP]", "where the country of the user is not known"),
    "frequency_cap": ("shown: 1", "the user was shown its content 1 times or more in 1 days"),
    "freshness_floor": ("younger_than: 1h", "and freshness_floor wants it younger than 1h"),
}
PLACEMENT = """
  {rule}:
    sources: [comics/new, weather/today]
    fallback: none
    {cache}
    rules: [{{{rule}: {{{params}}}}}]
    experiment: {{variants: {{all: {{weight: 1, policy: {{linucb: {{}}}}, explore: {{greedy: {{}}}}}}}}}}
"""
MESH = "services: {comics: {logics: [new]}, weather: {logics: [today]}}\nplacements:" + "".join(
    PLACEMENT.format(rule=rule, params=params, cache="cache: {}" if rule == "boost" else "")
    for rule, (params, _) in RULES.items()
)


async def fill(world: World) -> None:
    """Comics a to d, all dramas, which are old, and ann, who was shown a today."""
    old_s = time.time() - 1e6
    comics = [await world.hands.content("comics", each, genre="drama", published_at=old_s) for each in "abcd"]
    sun = await world.hands.content("weather", "sun", published_at=old_s)
    await world.hands.mapping("comics/new", {"ann": comics})
    await world.hands.mapping("weather/today", {"ann": [sun]})
    record = UserRecord.empty().shown(int(time.time()), comics[0], hashing.service_key("comics"))
    await world.hands.store.client.set(keys.state(keys.user_tag("ann")), record.pack(), px=600_000)
    await world.parts.live.reread()


async def test_every_rule_is_explained(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path, mesh=MESH) as world:
        await fill(world)
        for rule, (_, why) in RULES.items():
            found = await world.explain("ann", rule, count=5)
            told = [each for one in found.candidates for each in (*one.blocked, *one.shifted)]
            assert {each.rule for each in told} == {f"rules/{rule}"}
            assert any(why in each.because for each in told), (rule, told[0].because)


async def test_a_shift_of_a_cached_score_is_explained_like_a_fresh_one(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path, mesh=MESH) as world:
        await fill(world)

        async def hit() -> bool:
            await world.select("ann", "boost")
            return float(world.parts.metrics.cached.labels("boost", "hit")._value.get()) > 0

        await eventually(hit)
        found = await world.explain("ann", "boost", count=5)
        (moved,) = [one for one in found.candidates if one.shifted]
        assert (moved.content_id, moved.shifted[0].by) == ("c", pytest.approx(0.5))
        assert len(found.candidates) == 5
