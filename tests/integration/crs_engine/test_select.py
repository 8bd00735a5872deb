"""Selections over a socket, from what the importer and the joiner have written into a real Valkey."""

from __future__ import annotations

import math
import re
from pathlib import Path

import grpc
import numpy as np
import pytest

from banditmesh.bandits import hashing
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime import keys
from banditmesh.runtime.token import MAX_TOKEN_BYTES, NEAR_TOKEN_BYTES, KeyRing
from banditmesh.runtime.user_record import UserRecord
from tests.support.engine_world import MESH, TOKEN_KEYS, World, engine_world

RING = KeyRing.parse(TOKEN_KEYS)


def decision_of(world: World, shown: pb.SelectedContent) -> events_pb2.Decision:
    return RING.verify(shown.impression_token, now_s=world.server.clock.now_s(), max_age_s=60)


async def with_one_content(world: World, user: str = "ann", **fields: object) -> int:
    """A user with a single candidate, weather/rain by weather/today."""
    rain = await world.hands.content("weather", "rain", title="Rain", **fields)
    await world.hands.mapping("weather/today", {user: [rain]})
    await world.parts.live.reread()
    return rain


@pytest.mark.parametrize("redis", ["fresh_redis", "fresh_redis_cluster"])
async def test_a_mapped_content_is_shown_with_a_token_that_says_what_it_was_decided_from(
    redis: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with engine_world(request.getfixturevalue(redis), tmp_path) as world:
        await world.hands.profiles({"ann": {"age": "20s"}})
        await with_one_content(world, genre="alert")

        shown = (await world.select("ann", device="phone")).content

        assert (shown.service, shown.content.content_id, shown.content.title) == ("weather", "rain", "Rain")
        assert (shown.logic, shown.variant, shown.origin) == ("today", "learned", events_pb2.ORIGIN_POLICY)
        decision = decision_of(world, shown)
        assert (decision.user_id, decision.placement, decision.service) == ("ann", "head", "weather")
        assert (decision.content_id, decision.logic, decision.propensity) == ("rain", "today", 1.0)
        assert decision.impression_id == shown.impression_id
        assert len(shown.impression_id) == 16
        assert decision.model.startswith("linucb-")
        assert decision.model_version == 0
        explained = await world.explain("ann")
        named = {feature.id: feature.name for feature in explained.candidates[0].features}
        # age, feedback, hour, device, service, logic, genre and one cross; a dry run without a context has no device
        assert len(decision.features.ids) == 8
        assert len(set(decision.features.ids) - set(named)) == 1
        assert {
            "age=20s",
            "feedback=0",
            "service=weather",
            "logic=today",
            "genre=alert",
            "age=20s × genre=alert",
        } <= set(named.values())


async def test_every_selection_has_an_impression_of_its_own(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path) as world:
        await with_one_content(world)
        shown = [(await world.select("ann")).content for _ in range(3)]
        assert len({each.impression_id for each in shown}) == 3


@pytest.mark.parametrize("redis", ["fresh_redis", "fresh_redis_cluster"])
async def test_a_batch_answers_each_request_in_its_place_and_says_what_is_wrong_with_which(
    redis: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with engine_world(request.getfixturevalue(redis), tmp_path) as world:
        contents = {f"user{n}": [await world.hands.content("comics", f"c{n}")] for n in range(20)}
        await world.hands.mapping("comics/new", contents)
        await world.parts.live.reread()
        requests = [pb.SelectContentRequest(placement="head", user_id=user) for user in contents]
        requests[3] = pb.SelectContentRequest(placement="haed", user_id="user3")
        requests[4] = pb.SelectContentRequest(placement="haed", user_id="user4")
        requests[5] = pb.SelectContentRequest(placement="head", user_id="")

        response = await world.stub.BatchSelectContents(pb.BatchSelectContentsRequest(requests=requests))

        assert [each.WhichOneof("result") for each in response.results].count("selection") == 17
        assert [each.selection.content.content.content_id for each in response.results[6:]] == [
            f"c{n}" for n in range(6, 20)
        ]
        wrong = response.results[3].error
        assert (wrong.code, wrong.field) == (grpc.StatusCode.NOT_FOUND.value[0], "requests[3].placement")
        assert "did you mean 'head'" in wrong.message
        again = response.results[4].error  # searched for once a batch
        assert (again.code, again.field) == (wrong.code, "requests[4].placement")
        assert "did you mean" not in again.message
        assert response.results[5].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert response.results[5].error.field == "requests[5].user_id"


async def test_a_ranked_list_holds_different_contents_with_their_positions(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path) as world:
        contents = [await world.hands.content("comics", f"c{n}") for n in range(5)]
        await world.hands.mapping("comics/new", {"ann": contents})
        await world.parts.live.reread()

        response = await world.stub.RecommendContents(
            pb.RecommendContentsRequest(placement="head", user_id="ann", count=3)
        )
        everything = await world.stub.RecommendContents(pb.RecommendContentsRequest(placement="head", user_id="ann"))

        assert len({each.content.content_id for each in response.contents}) == 3
        assert [decision_of(world, each).position for each in response.contents] == [0, 1, 2]
        assert len(everything.contents) == 5


async def test_after_a_mute_the_slot_is_empty_until_the_time_is_over_and_other_slots_are_not(
    fresh_redis: str, tmp_path: Path
) -> None:
    two = MESH.replace("engine:", "  side:\n    sources: [comics/new]\nengine:")
    async with engine_world(fresh_redis, tmp_path, mesh=two) as world:
        await world.hands.mapping("comics/new", {"ann": [await world.hands.content("comics", "c1")]})
        await with_one_content(world)
        now_s = world.server.clock.now_s()
        await world.hands.reaction("ann", "mute", "weather", "storm", "head", now_s - 60)

        empty = (await world.select("ann")).no_content
        elsewhere = (await world.select("ann", "side")).content
        explained = await world.explain("ann")

        assert (explained.no_content.reason, explained.origin) == (empty.reason, events_pb2.ORIGIN_UNSPECIFIED)
        assert empty.reason == pb.NO_CONTENT_REASON_MUTED
        assert empty.until.seconds == pytest.approx(now_s - 60 + 3600, abs=2)
        assert elsewhere.content.content_id == "c1"


async def test_when_the_mute_is_over_the_slot_shows_again_but_not_what_was_muted(
    fresh_redis: str, tmp_path: Path
) -> None:
    async with engine_world(fresh_redis, tmp_path) as world:
        shown, muted = await world.hands.content("comics", "shown"), await world.hands.content("weather", "muted")
        await world.hands.mapping("comics/new", {"ann": [shown]})
        await world.hands.mapping("weather/today", {"ann": [muted]})
        await world.parts.live.reread()
        await world.hands.reaction("ann", "mute", "weather", "muted", "head", world.server.clock.now_s() - 3700)

        assert (await world.select("ann")).content.content.content_id == "shown"
        removed = (await world.explain("ann")).candidates[1]
        assert (removed.content_id, removed.removed_by) == ("muted", "filters/muted_content")


async def test_a_new_version_of_a_mapping_shows_as_a_whole_never_mixed_with_the_old(
    fresh_redis: str, tmp_path: Path
) -> None:
    async with engine_world(fresh_redis, tmp_path) as world:
        old, new = await world.hands.content("comics", "old"), await world.hands.content("comics", "new")
        await world.hands.mapping("comics/new", {"ann": [old], "bob": [old]})
        await world.parts.live.reread()
        assert (await world.select("ann")).content.content.content_id == "old"

        waiting = await world.hands.mapping("comics/new", {"ann": [new]}, flip=False)
        assert (await world.select("ann")).content.content.content_id == "old"

        await world.hands.go_live("comics/new", waiting)
        await world.parts.live.reread()
        assert (await world.select("ann")).content.content.content_id == "new"
        # bob is not in the new version, and what the old one left behind does not count
        assert (await world.select("bob")).no_content.reason == pb.NO_CONTENT_REASON_NO_CANDIDATES


async def test_the_change_stream_brings_new_versions_and_changed_contents(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path) as world:
        rain = await world.hands.content("weather", "rain", title="Rain")
        await world.hands.mapping("weather/today", {"ann": [rain]})
        await world.shows("ann", lambda selection: selection.content.content.title == "Rain")

        await world.hands.content("weather", "rain", title="More rain")
        await world.shows("ann", lambda selection: selection.content.content.title == "More rain")


async def test_a_number_that_is_not_finite_is_left_out_and_counted(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path) as world:
        await with_one_content(world, year=math.nan)

        shown = (await world.select("ann")).content

        assert shown.content.content_id == "rain"
        assert all(np.isfinite(decision_of(world, shown).features.values))
        await world.parts.maintenance.once()
        assert (
            world.server.registry.get_sample_value(
                "banditmesh_engine_features_dropped_total", {"placement": "head", "field": "year"}
            )
            == 1
        )


async def test_what_is_unreadable_in_redis_takes_nothing_else_along(fresh_redis: str, tmp_path: Path) -> None:
    async with engine_world(fresh_redis, tmp_path) as world:
        rain = await with_one_content(world)
        broken = await world.hands.content("weather", "broken")
        await world.hands.store.client.set(keys.content(broken), b"\xff\xff\xff")
        await world.hands.store.client.set(keys.state("{ann}"), b"short")
        await world.hands.mapping("weather/today", {"ann": [broken, rain]})
        await world.hands.profiles({"ann": {}})
        profile = world.hands.live[keys.PROFILES]
        await world.hands.store.client.set(
            keys.profile("{ann}", profile.slot), profile.version.to_bytes(4, "little") + b"{"
        )
        await world.parts.live.reread()

        assert (await world.select("ann")).content.content.content_id == "rain"
        assert (await world.explain("ann")).candidates[1].removed_by == "filters/unknown_content"


async def test_an_explained_list_says_which_rule_kept_which_content_from_which_position(
    fresh_redis: str, tmp_path: Path
) -> None:
    capped = MESH.replace("    experiment:", "    rules: {cap_per_service: {most: 1}}\n    experiment:")
    async with engine_world(fresh_redis, tmp_path, mesh=capped) as world:
        comics = [await world.hands.content("comics", f"c{n}") for n in range(2)]
        await world.hands.mapping("comics/new", {"ann": comics})
        await world.hands.mapping("weather/today", {"ann": [await world.hands.content("weather", "rain")]})
        await world.parts.live.reread()

        explained = await world.explain("ann", count=3)

        shown = [each for each in explained.candidates if each.HasField("position")]
        assert sorted(each.position for each in shown) == [0, 1]
        (kept_off,) = (each for each in explained.candidates if not each.HasField("position"))
        comic_at = next(each.position for each in shown if each.service == "comics")
        assert {each.rule for each in kept_off.blocked} == {"rules/cap_per_service"}
        assert [each.position for each in kept_off.blocked] == list(range(comic_at + 1, 3))
        assert kept_off.blocked[0].because == "the list has 1 of comics before it, and cap_per_service allows 1"
        assert [each.propensity for each in explained.candidates] == pytest.approx([1 / 3] * 3)


async def test_what_was_shown_today_is_a_feature_and_keeps_a_content_from_being_shown_for_ever(
    fresh_redis: str, tmp_path: Path
) -> None:
    features = MESH.replace("state: [feedback]", "state: [feedback, shown_today]")
    tired = features.replace("content: [service", "content: [content_shown, service_shown, service").replace(
        "    experiment:", "    fallback: none\n    filters: {frequency_cap: {shown: 3}}\n    experiment:"
    )
    async with engine_world(fresh_redis, tmp_path, mesh=tired) as world:
        rain = await with_one_content(world)
        record, service, now_s = UserRecord.empty(), hashing.service_key("weather"), int(world.server.clock.now_s())
        for times in range(4):
            await world.hands.store.client.set(keys.state("{ann}"), record.pack())
            explained = await world.explain("ann")
            if times < 3:
                names = {feature.name for feature in explained.candidates[0].features}
                count = ("0", "1", "2-3")[times]
                assert {f"{name}={count}" for name in ("shown_today", "content_shown", "service_shown")} <= names
                assert (await world.select("ann")).content.content.content_id == "rain"
            record = record.shown(now_s, rain, service)
        assert explained.candidates[0].removed_by == "filters/frequency_cap"
        assert (await world.select("ann")).no_content.reason == pb.NO_CONTENT_REASON_ALL_FILTERED


async def test_a_token_that_comes_near_the_limit_is_still_good_and_counted(fresh_redis: str, tmp_path: Path) -> None:
    features = (
        "features: {profile: [likes], content: [genres, tags, year], multi_valued: {likes: 16, genres: 16, tags: 8}, "
        "crosses: [[likes, genres], [likes, tags]]}"
    )
    mesh = re.sub(r"features: \{.*?\]\]\}", features, MESH, flags=re.DOTALL)
    async with engine_world(fresh_redis, tmp_path, mesh=mesh) as world:
        await world.hands.profiles({"ann": {"likes": [f"like {number}" for number in range(16)]}})
        await with_one_content(world, genres=[f"g{n}" for n in range(16)], tags=[f"t{n}" for n in range(8)], year=0.7)

        shown = (await world.select("ann")).content

        assert NEAR_TOKEN_BYTES < len(shown.impression_token) <= MAX_TOKEN_BYTES
        assert len(decision_of(world, shown).features.ids) == 425
        await world.parts.maintenance.once()
        labels = {"placement": "head"}
        assert world.server.registry.get_sample_value("banditmesh_engine_large_tokens_total", labels) == 1
