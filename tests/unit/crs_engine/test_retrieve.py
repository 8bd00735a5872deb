"""``retrieve``: what models of the engine propose, to whom, how much, and that it is a candidate like any other."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from banditmesh.bandits.hashing import content_key
from banditmesh.bandits.registry import model_name
from banditmesh.contracts.provider.v1.provider_pb2 import Attribute, Content
from banditmesh.runtime import packing
from banditmesh.runtime.clock import ManualClock
from services.crs_engine.catalog import Fetched
from services.crs_engine.feature_names import FeatureNames
from services.crs_engine.pipeline.batch import Answered
from services.crs_engine.pipeline.retrievers.newest import LOOK_EVERY_S, Newest
from tests.support.engine_batch import NOW_S, Bench, decisions, run
from tests.support.engine_world import MESH
from tests.unit.crs_engine.test_pipeline import untrained

RETRIEVE = "retrieve: {from: [comics], newest: {share: 3}, popularity: {share: 2}}"
MESH_WITH_BOTH = MESH.replace("    experiment:", f"    {RETRIEVE}\n    hide_clicked: false\n    experiment:")
SAID = MESH_WITH_BOTH.replace(
    "content: [service, logic, genre, year],", "content: [logic], candidate: [score, rank],"
).replace("crosses: [[age, genre]]", "crosses: [[logic, score]]")
ALONE = MESH_WITH_BOTH.replace("    sources: [weather/today, weather/tomorrow, comics/new, comics/similar]\n", "")


def logics(answered: Answered, user: str = "ann") -> dict[str, str]:
    """What is shown to the user: the logic of each content."""
    return {each.content_id: each.logic for each in decisions(answered)[user]}


def comics(bench: Bench, n: int = 6) -> list[int]:
    """c0 is the youngest."""
    return [bench.content("comics", f"c{at}", age_s=at * 86_400.0) for at in range(n)]


def test_each_model_proposes_its_share_and_what_two_propose_is_one_candidate() -> None:
    bench = Bench(MESH_WITH_BOTH)
    keys = comics(bench)
    bench.content("weather", "sun")  # younger than all, and not of a service that is retrieved from
    ann = bench.user("ann", {"comics/new": keys[5:]})
    shown = logics(run(bench, untrained(bench, popular=[keys[4], keys[0], keys[3]]), [ann], count=9))
    # popularity: c4 and c0, of which newest would be the second to propose c0
    assert shown == {
        "c5": "new",
        "c4": "popularity",
        "c0": "popularity",
        "c1": "newest",
        "c2": "newest",
        **_rest(shown),
    }
    assert len(shown) == 6  # c3 is the fallback's


def test_what_has_gone_takes_no_place_of_what_can_be_shown() -> None:
    bench = Bench(
        MESH_WITH_BOTH.replace(", newest: {share: 3}", "").replace("hide_clicked", "fallback: none\n    hide_clicked")
    )
    hidden, expired = (
        bench.content("comics", "hidden", hidden=True),
        bench.content("comics", "old", expires_s=NOW_S - 1),
    )
    keys = comics(bench)
    ann = bench.user("ann", {})
    popular = [hidden, keys[4], expired, keys[0], keys[3]]
    assert [*logics(run(bench, untrained(bench, popular), [ann], count=9))] == ["c4", "c0"]


async def test_a_new_article_is_proposed_a_moment_after_it_is_here() -> None:
    bench, clock = Bench(MESH_WITH_BOTH), ManualClock(NOW_S)
    newest = Newest(bench.catalog, 100)
    task = asyncio.create_task(newest.run(bench.placements.values(), clock))
    await clock.advance(LOOK_EVERY_S)
    keys = [*comics(bench), bench.content("comics", "breaking", age_s=-0.5)]
    await clock.advance(LOOK_EVERY_S)
    task.cancel()
    assert newest.retrieve(bench.placement).contents.tolist() == [keys[-1], *keys[:-1]]


def test_a_content_whose_date_is_to_come_is_as_young_as_any_that_is_new_and_ages_like_it() -> None:
    bench = Bench(MESH_WITH_BOTH)
    reads = [("ms", NOW_S * 1000, NOW_S - 60), ("new", NOW_S - 30, NOW_S), ("ms", NOW_S * 1000, NOW_S)]
    for name, number, read_s in reads:
        content = Content(content_id=name, attributes=[Attribute(name="published_at", number=number)])
        key = content_key("comics", name)
        bench.catalog.put([Fetched(key, packing.pack_content("comics", content.SerializeToString()))], 0.0, read_s)
    newest = Newest(bench.catalog, 100)
    for placement in bench.placements.values():
        if newest.name in placement.retrievers:
            newest.refresh(placement, NOW_S)
    names = [bench.catalog.name_of(row)[1] for row in bench.catalog.find(newest.retrieve(bench.placement).contents)]
    assert names == ["new", "ms"]


def test_popularity_that_fades_faster_is_counted_by_a_model_of_its_own() -> None:
    text = MESH_WITH_BOTH.replace("popularity: {share: 2}", "popularity: {share: 1, half_life: 20s}")
    bench = Bench(text)
    keys = comics(bench)
    known = untrained(bench, popular=[keys[4]])
    hot = untrained(bench, popular=[keys[5]]).fallback
    model = model_name("popularity", {"half_life": "20s"})
    assert ("head", model) in bench.mesh.models()
    ann = bench.user("ann", {})
    shown = logics(run(bench, replace(known, popular_by={model: hot}), [ann], count=4))
    assert {content for content, logic in shown.items() if logic == "popularity"} == {"c5"}


def _rest(shown: dict[str, str]) -> dict[str, str]:
    return {name: logic for name, logic in shown.items() if not logic}


def test_a_placement_may_have_nothing_but_what_models_propose() -> None:
    bench = Bench(ALONE)
    comics(bench)
    ann = bench.user("ann", {})
    shown = logics(run(bench, untrained(bench), [ann], count=3))
    assert shown == dict.fromkeys(["c0", "c1", "c2"], "newest")


def test_a_variant_has_its_own_models() -> None:
    two = MESH_WITH_BOTH.replace(
        "        learned: {weight: 1, policy: {linucb: {arm: logic}}, explore: {greedy: {}}}",
        "        learned: {weight: 1, policy: {linucb: {arm: logic}}}\n"
        "        young: {weight: 1, policy: {linucb: {arm: logic}}, retrieve: {newest: {share: 1}}}",
    ).replace("    experiment:", "    fallback: none\n    experiment:")
    bench = Bench(two)
    comics(bench)
    users = [bench.user(f"u{n}", {}) for n in range(12)]
    shown = decisions(run(bench, untrained(bench), users, count=5))
    counts = {each.variant: len(of_user) for of_user in shown.values() for each in of_user}
    assert counts == {"learned": 3, "young": 1}


def test_nothing_is_proposed_to_a_muted_slot() -> None:
    bench = Bench(MESH_WITH_BOTH)
    comics(bench)
    users = [bench.user("ann", {}, reactions=[("mute", "weather", "x", 60.0)]), bench.user("bob", {})]
    shown = decisions(run(bench, untrained(bench), users, count=3))
    assert [len(shown[user]) for user in users] == [0, 3]


def test_score_and_rank_of_mapping_and_retriever_are_features() -> None:
    bench = Bench(SAID)
    keys = comics(bench)
    ann = bench.user("ann", {})
    bench.values[ann]["comics/new"] = packing.pack_candidates(
        1, np.array([keys[5], keys[4]], np.uint64), np.array([0.75, 0.5], np.float32)
    )
    slate = run(bench, untrained(bench), [ann], count=9).slate
    pool, candidates = slate.rounds[0].pool, slate.rounds[0].candidates
    names = FeatureNames(slate, bench.catalog)
    found = {}
    for at, content in enumerate(pool.contents.tolist()):
        span = slice(int(candidates.features.offsets[at]), int(candidates.features.offsets[at + 1]))
        named = names.of(pool, at)
        found[f"c{keys.index(content)}"] = {
            named[each]: round(float(value), 3)
            for each, value in zip(
                candidates.features.ids[span].tolist(), candidates.features.values[span].tolist(), strict=True
            )
            if " × " not in named[each]
        }
        assert named[int(candidates.features.ids[span][-1])].endswith(" × score")
    assert found == {
        "c5": {"logic=new": 1, "score": 0.75, "rank=0": 1},
        "c4": {"logic=new": 1, "score": 0.5, "rank=1": 1},
        "c0": {"logic=newest": 1, "score": 1.0, "rank=0": 1},
        "c1": {"logic=newest": 1, "score": 0.5, "rank=1": 1},
        "c2": {"logic=newest": 1, "score": 0.25, "rank=2-3": 1},
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_none(bad: float) -> None:
    value = packing.pack_candidates(1, np.arange(2, dtype=np.uint64), np.array([bad, 0.5], np.float32))
    assert packing.unpack_score_batch([None, value], np.array([0, 2])).tolist() == [0.0, 0.5]
