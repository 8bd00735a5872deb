"""The recommendation cache: scores are kept, never lists, so what comes of them is drawn and exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from banditmesh.bandits.registry import build
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.models import LoadedModel
from services.crs_engine.pipeline import ranked, rules
from services.crs_engine.pipeline.batch import Answered
from services.crs_engine.rule_cost import RuleCosts
from tests.support.engine_batch import NOW_S, Bench, FixedModels, decisions, run
from tests.support.engine_world import MESH
from tests.support.fixed_models import models as untrained

CACHED = MESH.replace("explore: {greedy: {}}", "explore: {softmax: {temperature: 0.1}}").replace(
    "    experiment:", "    cache: {max_age: 10m, model_slack: 1m, contents: 3}\n    experiment:"
)
DIFFERENT = [0.1, 0.3, 0.2, 0.0]


class Fixed:
    """A policy that expects these rewards of comics c0, c1, …; it counts how often it is asked."""

    def __init__(self, bench: Bench) -> None:
        self.inner, self.asked = build("linucb", {"arm": "logic"}), 0
        self.means = {bench.content("comics", f"c{n}", "drama"): mean for n, mean in enumerate(DIFFERENT)}

    def score(self, candidates: object) -> object:
        scores = self.inner.score(candidates)  # type: ignore[arg-type]
        self.asked += len(candidates)  # type: ignore[arg-type]
        means = [self.means[key] for key in candidates.contents.tolist()]  # type: ignore[attr-defined]
        return scores._replace(mean=np.array(means, np.float32))


class World:
    def __init__(self, text: str = CACHED) -> None:
        self.bench = Bench(text)
        self.policy = Fixed(self.bench)
        self.ann = self.bench.user("ann", {"comics/new": list(self.policy.means)}, profile={"age": "30"})
        self.model = LoadedModel(self.policy, 5, published_at_ms=1_000_000)  # type: ignore[arg-type]

    def select(self, count: int = 1) -> Answered:
        return self.select_for([self.ann], count)

    def select_for(self, users: list[str], count: int = 1) -> Answered:
        known = untrained(self.bench)
        found = FixedModels({**known.loaded, self.bench.placement.variants[0].model: self.model}, known.fallback)
        return run(self.bench, found, users, count=count)

    def entries(self, answered: Answered, made_s: float = NOW_S) -> list[tuple[str, bytes]]:
        return list(ranked.entries(answered.slate, rules.enabled(self.bench.placement.config), made_s))

    def keep(self, made_s: float = NOW_S) -> None:
        ((key, value),) = self.entries(self.select(), made_s)
        assert key == "c:{ann}:ranked:head"
        self.bench.values["ann"]["ranked"] = value

    def result(self) -> str:
        cached = self.select().cached
        assert cached is not None
        (found,) = cached.results
        return found


def test_a_hit_is_drawn_from_the_kept_scores_with_exact_propensities_and_whole_tokens() -> None:
    """Of four, the best three are kept; softmax over their kept scores, position by position."""
    world = World()
    world.keep()
    asked = world.policy.asked
    answered = world.select(count=3)
    assert world.policy.asked == asked, "nothing was scored again"
    (shown,) = decisions(answered).values()
    left = {f"c{n}": np.exp(mean / 0.1) for n, mean in enumerate(DIFFERENT[:3])}
    for each in shown:
        assert each.propensity == pytest.approx(left[each.content_id] / sum(left.values()), rel=1e-5)
        del left[each.content_id]
    assert {(each.model_version, each.origin, each.logic) for each in shown} == {(5, 1, "new")}
    fresh = decisions(World().select())["ann"][0]
    assert sorted(shown[0].features.ids) == sorted(fresh.features.ids)


def test_an_entry_of_a_model_within_the_slack_holds_and_the_token_says_which_one_scored() -> None:
    world = World()
    world.keep()
    world.model = replace(world.model, version=6, published_at_ms=1_059_000)
    assert world.result() == "hit"
    answered = world.select()
    assert decisions(answered)["ann"][0].model_version == 5
    assert answered.slate.rounds[1].version(0, world.bench.placement.variants[0].model) == 5, "as explanations say"
    world.model = replace(world.model, version=7, published_at_ms=1_061_000)
    assert world.result() == "model"


@pytest.mark.parametrize(
    ("reactions", "result"),
    [([("click", "weather", "x", 60.0)], "hit"), ([("target", "weather", "x", 60.0)], "target")],
)
def test_a_target_action_ends_an_entry_and_a_click_does_not(
    reactions: list[tuple[str, str, str, float]], result: str
) -> None:
    world = World()
    world.keep()
    entry = world.bench.values["ann"]["ranked"]
    world.bench.user("ann", {"comics/new": list(world.policy.means)}, reactions=reactions)
    world.bench.values["ann"]["ranked"] = entry
    assert world.result() == result


def test_an_entry_ends_by_age_by_a_content_that_went_away_and_by_another_configuration() -> None:
    world = World()
    assert world.result() == "absent"
    world.keep(NOW_S - 601)
    assert world.result() == "age"
    world.keep()
    world.bench.content("comics", "c1", "drama", hidden=True)
    assert world.result() == "content"
    other = World(CACHED.replace("temperature: 0.1", "temperature: 0.2"))
    other.bench.values["ann"]["ranked"] = world.bench.values["ann"]["ranked"]
    assert other.result() == "placement"
    world.bench.values["ann"]["ranked"] = b"\x01broken"
    assert world.result() == "placement"


def test_an_entry_is_for_requests_that_say_the_same_of_what_scores_depend_on() -> None:
    """`device` is a feature, `page` is none."""
    world = World()
    world.bench.said = {"device": "tv", "page": "1"}
    world.keep()
    for said, result in (
        ({"device": "tv", "page": "2"}, "hit"),
        ({"device": "phone"}, "context"),
        ({}, "context"),
        ({"device": "tv", "time_zone": "Asia/Tokyo"}, "context"),
    ):
        world.bench.said = said
        assert world.result() == result, said


def test_another_fit_beneath_the_model_ends_an_entry_whatever_the_slack() -> None:
    world = World()
    world.keep()
    world.model = replace(world.model, beneath=1)
    assert world.result() == "model"


def test_filters_and_rules_hold_over_what_was_cached_before() -> None:
    world = World(
        CACHED.replace(
            "    experiment:", "    rules: {cap_per_attribute: {attribute: genre, most: 1}}\n    experiment:"
        )
    )
    world.keep()
    entry = world.bench.values["ann"]["ranked"]
    world.bench.user("ann", {}, reactions=[("click", "comics", "c1", 60.0)])
    world.bench.values["ann"]["ranked"] = entry
    answered = world.select(count=3)
    (shown,) = decisions(answered).values()
    assert len(shown) == 1, "all are dramas, and one is allowed"
    assert shown[0].content_id in ("c0", "c2"), "c1 was clicked"


@pytest.mark.parametrize(
    "rule",
    [
        "pin: {of: {content: comics/c3}, position: 1}",
        "quota: {of: {content: comics/c3}, at_least: 1, first: 2}",
        "freshness_floor: {younger_than: 1h, at_least: 1, first: 2}",
        "boost: {of: {content: comics/c3}, by: 9}",
    ],
)
def test_what_a_rule_wants_on_lists_is_kept_whatever_its_score_and_however_short_the_list_was(rule: str) -> None:
    """c3 is the worst of four, and three are kept."""
    world = World(CACHED.replace("    experiment:", f"    rules: [{{{rule}}}]\n    experiment:"))
    world.bench.content("comics", "c3", "drama", age_s=60.0)
    world.keep()
    (shown,) = decisions(world.select(count=2)).values()
    assert world.result() == "hit"
    assert "c3" in [each.content_id for each in shown]


def test_what_a_rule_bars_is_kept_last() -> None:
    barred = "{blackout: {of: {content: comics/c1}, hours: '00:00-24:00'}}"
    world = World(CACHED.replace("    experiment:", f"    rules: [{barred}]\n    experiment:"))
    world.keep()
    (shown,) = decisions(world.select(count=3)).values()
    assert world.result() == "hit"
    assert sorted(each.content_id for each in shown) == ["c0", "c2", "c3"]


def test_a_service_that_is_new_in_the_mesh_ends_entries_that_count_by_its_place() -> None:
    """Where `sources` names no service, candidates are of those of the mesh, in their order."""
    sources = "    sources: [weather/today, weather/tomorrow, comics/new, comics/similar]\n"
    text = CACHED.replace(sources, "    retrieve: {newest: {share: 9}}\n")
    world = World(text)
    world.keep()
    assert world.result() == "hit"
    other = World(text.replace("  weather: {logics: [today, tomorrow]}\n", "  art: {logics: [a]}\n"))
    other.bench.values["ann"]["ranked"] = world.bench.values["ann"]["ranked"]
    assert other.result() == "placement"


def test_a_rule_costs_as_much_on_cached_lists_as_on_fresh_ones() -> None:
    """Greedy: c1 (0.3) is buried, so c2 (0.2) is shown."""
    text = CACHED.replace("{softmax: {temperature: 0.1}}", "{greedy: {}}").replace("contents: 3", "contents: 4")
    buried = "    rules: [{bury: {of: {content: comics/c1}, by: 9}}]\n"
    world = World(text.replace("    experiment:", f"{buried}    experiment:"))
    world.keep()
    world.bench.user("bob", {"comics/new": list(world.policy.means)})
    for users, hits in ((["ann"], 1), (["ann", "bob"], 1), (["bob"], 0)):
        metrics = EngineMetrics(CollectorRegistry())
        answered = world.select_for(users)
        assert answered.cached is not None
        assert answered.cached.hits.sum() == hits
        RuleCosts(metrics).look(answered.slate, ["bury"])
        assert metrics.rule_cost.labels("head", "bury")._value.get() == pytest.approx(0.1)


def test_users_with_and_without_an_entry_are_answered_together() -> None:
    world = World()
    world.keep()
    bob = world.bench.user("bob", {"comics/new": list(world.policy.means)[:2]})
    answered = world.select_for([world.ann, bob], count=2)
    assert answered.cached is not None
    assert dict(answered.cached.results) == {"hit": 1, "absent": 1}
    assert {user: len(shown) for user, shown in decisions(answered).items()} == {"ann": 2, "bob": 2}
    assert [key for key, _ in world.entries(answered)] == ["c:{bob}:ranked:head"]
