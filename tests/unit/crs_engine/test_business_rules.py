"""What each business rule does to lists, with propensities worked out by hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import e

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from banditmesh.bandits.batch import Scores
from banditmesh.contracts.events.v1.events_pb2 import Decision
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import parse_mesh
from services.crs_engine.engine import group_requests
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline import rules
from services.crs_engine.pipeline.batch import Answered, SelectionRequest
from services.crs_engine.rule_cost import RuleCosts
from tests.support.engine_batch import Bench, BenchReads, decisions, run
from tests.support.engine_world import MESH
from tests.support.fixed_models import models

UNIFORM = "{epsilon_greedy: {epsilon: 1.0}}"


def bench_of(*rules: str, explore: str = UNIFORM) -> Bench:
    text = MESH.replace("explore: {greedy: {}}", f"explore: {explore}")
    listed = "".join(f"\n      - {rule}" for rule in rules)
    return Bench(text.replace("    experiment:", f"    rules:{listed}\n    experiment:"))


def lists_of(bench: Bench, users: Sequence[str], count: int) -> list[list[Decision]]:
    return list(decisions(run(bench, models(bench), users, count=count)).values())


def ids(shown: Sequence[Decision]) -> str:
    return " ".join(each.content_id for each in shown)


def several(bench: Bench, n: int, proposals: dict[str, list[int]]) -> list[str]:
    return [bench.user(f"user{at}", proposals) for at in range(n)]


def explained(answered: Answered) -> dict[str, set[int]]:
    """By rule: the places in the pool that it blocks at the first position of the first round."""
    drawn = answered.slate.rounds[0]
    left = np.ones(len(drawn.pool), np.bool_)
    found = {}
    for name, constraint in drawn.constraints.items():
        blocked = constraint.blocks(drawn.choice.chosen[:, :0], left)
        at = [] if blocked is None else np.flatnonzero(blocked).tolist()
        assert all(constraint.because(each, drawn.choice.chosen[:, :0]) for each in at)
        found[name] = set(at)
    return found


def test_cap_per_attribute_counts_every_value_of_a_content() -> None:
    """Drama and war once each: after the one that is both, only comedy is left; after drama, war or comedy."""
    bench = bench_of("cap_per_attribute: {attribute: genre, most: 1}")
    proposals = {
        "comics/new": [
            bench.content("comics", "both", "drama|war"),
            bench.content("comics", "drama", "drama"),
            bench.content("comics", "war", "war"),
            bench.content("comics", "none"),
        ]
    }
    lists = lists_of(bench, several(bench, 200, proposals), 4)
    assert {frozenset(ids(shown).split()) for shown in lists} == {
        frozenset({"both", "none"}),
        frozenset({"drama", "war", "none"}),
    }
    for shown in lists:
        if ids(shown) == "both none":
            assert [each.propensity for each in shown] == pytest.approx([1 / 4, 1])
        if ids(shown) == "drama war none":
            assert [each.propensity for each in shown] == pytest.approx([1 / 4, 1 / 2, 1])


def test_a_quota_takes_the_last_position_that_is_left_to_it_and_no_earlier_one() -> None:
    """One sponsored of three in a list of two: drawn first with 1/3, else it gets the second position for sure."""
    bench = bench_of("quota: {of: {attribute: label, values: [sponsored]}, at_least: 1, first: 2}")
    plain = [bench.content("comics", f"c{n}") for n in range(2)]
    paid = bench.content("weather", "paid", label="sponsored")
    lists = lists_of(bench, several(bench, 300, {"comics/new": plain, "weather/today": [paid]}), 2)
    for shown in lists:
        if shown[0].content_id == "paid":
            assert [each.propensity for each in shown] == pytest.approx([1 / 3, 1 / 2])
        else:
            assert shown[1].content_id == "paid"
            assert [each.propensity for each in shown] == pytest.approx([1 / 3, 1])
    first = np.mean([shown[0].content_id == "paid" for shown in lists])
    assert first == pytest.approx(1 / 3, abs=4 * 0.5 / len(lists) ** 0.5)


def test_a_quota_that_no_candidate_fills_leaves_no_position_empty() -> None:
    bench = bench_of("quota: {of: {service: weather}, at_least: 2, first: 3}")
    plain = [bench.content("comics", f"c{n}") for n in range(4)]
    (shown,) = lists_of(bench, [bench.user("ann", {"comics/new": plain})], 3)
    assert len(shown) == 3


def test_two_quotas_share_what_is_left_and_a_shorter_list_owes_less() -> None:
    bench = bench_of(
        "quota: {of: {service: weather}, at_least: 1, first: 2}",
        "quota: {of: {attribute: label, values: [new]}, at_least: 1, first: 3}",
    )
    comics = [bench.content("comics", f"c{n}") for n in range(5)] + [bench.content("comics", "fresh", label="new")]
    rain = bench.content("weather", "rain")
    users = several(bench, 60, {"comics/new": comics, "weather/today": [rain]})
    for shown in lists_of(bench, users, 3):
        assert "rain" in ids(shown[:2])
        assert "fresh" in ids(shown)
    first = Counter(ids(shown) for shown in lists_of(bench, users, 1))
    assert len(first) > 2, "a single selection owes nothing: 1 of the first 2 is half of one, rounded down"


def test_a_quota_is_kept_where_there_are_fewer_candidates_than_positions_to_come() -> None:
    """Two may stay of five wanted, for the cap allows one of each service: the quota must be filled in time."""
    bench = bench_of(
        "cap_per_service: {most: 1}", "quota: {of: {attribute: label, values: [paid]}, at_least: 1, first: 5}"
    )
    weather = [bench.content("weather", f"w{n}") for n in range(3)]
    paid = bench.content("comics", "paid", label="paid")
    for shown in lists_of(bench, several(bench, 20, {"weather/today": weather, "comics/new": [paid]}), 5):
        assert "paid" in ids(shown)


def test_a_pinned_content_stands_at_its_position_and_nowhere_else() -> None:
    """Of a, b and the pinned c: the first position is drawn from a and b, 1/2 each; the second is c's."""
    bench = bench_of("pin: {of: {content: comics/c}, position: 1}")
    three = [bench.content("comics", each) for each in "abc"]
    for shown in lists_of(bench, several(bench, 50, {"comics/new": three}), 3):
        assert ids(shown) in {"a c b", "b c a"}
        assert [each.propensity for each in shown] == pytest.approx([1 / 2, 1, 1])


def test_a_pin_whose_content_is_no_candidate_or_is_all_there_is_costs_nobody_a_position() -> None:
    bench = bench_of("pin: {of: {content: comics/c}, position: 1}")
    two = [bench.content("comics", each) for each in "ab"]
    alone = [bench.content("comics", "c")]
    without, only = lists_of(
        bench, [bench.user("ann", {"comics/new": two}), bench.user("bob", {"comics/new": alone})], 2
    )
    assert len(without) == 2
    assert ids(only) == "c"


def test_two_positions_pinned_to_one_service_get_two_of_its_contents() -> None:
    bench = bench_of("pin: {of: {service: weather}, position: 3}", "pin: {of: {service: weather}, position: 2}")
    comics = [bench.content("comics", f"c{n}") for n in range(6)]
    weather = [bench.content("weather", f"w{n}") for n in range(2)]
    for shown in lists_of(bench, several(bench, 40, {"comics/new": comics, "weather/today": weather}), 5):
        assert [each.service for each in shown] == ["comics", "comics", "weather", "weather", "comics"]


def test_boost_and_bury_move_scores_before_the_exploration_and_propensities_follow() -> None:
    """By softmax at temperature 0.1, a score that is 0.1 higher has e times the odds."""
    bench = bench_of(
        "boost: {of: {attribute: genre, values: [drama]}, by: 0.1}",
        "bury: {of: {content: comics/old}, by: 0.1}",
        explore="{softmax: {temperature: 0.1}}",
    )
    proposals = {
        "comics/new": [
            bench.content("comics", "drama", "drama"),
            bench.content("comics", "plain", "war"),
            bench.content("comics", "old", "war"),
        ]
    }
    lists = lists_of(bench, several(bench, 200, proposals), 1)
    expected = {"drama": e, "plain": 1.0, "old": 1 / e}
    for (shown,) in lists:
        assert shown.propensity == pytest.approx(expected[shown.content_id] / sum(expected.values()), rel=1e-4)
    assert {shown.content_id for (shown,) in lists} == set(expected)


def test_a_boost_by_share_moves_scores_whose_unit_is_no_reward() -> None:
    """A fallback ranks the newest first by its age: half of a day less makes yesterday's the newer one."""
    text = MESH.replace("    experiment:", "    fallback: newest\n    rules: [RULE]\n    experiment:")
    texts = text.replace("[RULE]", "[]"), text.replace("RULE", "boost: {of: {content: comics/old}, share: 0.9}")
    firsts = []
    for each in texts:
        bench = Bench(each)
        bench.content("comics", "newest", age_s=0.0)
        bench.content("comics", "middle", age_s=40_000.0)
        bench.content("comics", "old", age_s=86_400.0)
        shown = lists_of(bench, [bench.user(f"u{n}", {}) for n in range(100)], 1)
        firsts.append({decision.content_id: decision.propensity for (decision,) in shown})
    assert firsts[0]["old"] == pytest.approx(2 / 11)
    assert firsts[1]["old"] == pytest.approx(3 / 11)


def test_diversity_lowers_the_score_of_what_resembles_the_list() -> None:
    """Of two dramas and a comedy with equal scores: after a drama the other one is 0.1 behind, so e times rarer."""
    bench = bench_of("diversity: {attribute: genre, penalty: 0.1}", explore="{softmax: {temperature: 0.1}}")
    proposals = {
        "comics/new": [
            bench.content("comics", "d1", "drama"),
            bench.content("comics", "d2", "drama"),
            bench.content("comics", "c", "comedy"),
        ]
    }
    for shown in lists_of(bench, several(bench, 60, proposals), 2):
        second = {"d1 c": e / (1 + e), "d2 c": e / (1 + e)}.get(ids(shown), 1 / (1 + e))
        if shown[0].content_id == "c":
            second = 1 / 2
        assert [each.propensity for each in shown] == pytest.approx([1 / 3, second], rel=1e-4)


def test_likeness_is_the_share_of_values_in_common() -> None:
    bench = bench_of("diversity: {attribute: genre, penalty: 1.0}")
    proposals = {"comics/new": [bench.content("comics", "a", "x|y"), bench.content("comics", "b", "y|z|w")]}
    answered = run(bench, models(bench), several(bench, 1, proposals), count=2)
    (constraint,) = answered.slate.rounds[0].constraints.values()
    moved = constraint.shifts(np.array([[0]]))
    assert moved is not None
    assert moved.tolist() == pytest.approx([-1.0, -1 / 4])


def test_likeness_by_vectors_is_their_cosine_and_no_vector_is_like_nothing() -> None:
    text = MESH.replace("services:", "vectors: {dimensions: 2}\nservices:", 1)
    with_vectors = text.replace(
        "    experiment:", "    rules: {diversity: {vectors: true, penalty: 0.5}}\n    experiment:"
    )
    bench = Bench(with_vectors)
    vectors = {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [-1.0, 0.0], "d": []}
    proposals = {"comics/new": [bench.content("comics", name, embedding=each) for name, each in vectors.items()]}
    answered = run(bench, models(bench), several(bench, 1, proposals), count=2)
    (constraint,) = answered.slate.rounds[0].constraints.values()
    moved = constraint.shifts(np.array([[0]]))
    assert moved is not None
    assert moved.tolist() == pytest.approx([-0.5, -0.3, 0.0, 0.0], abs=1e-3)
    with pytest.raises(ConfigurationError, match=r"rules\.0\.diversity\.vectors: the mesh has no section `vectors`"):
        parse_mesh(with_vectors.replace("vectors: {dimensions: 2}\n", ""))


def test_spread_keeps_equal_values_apart_and_gives_way_when_nothing_else_is_left() -> None:
    bench = bench_of("spread: {attribute: genre, apart: 2}")
    dramas = [bench.content("comics", f"d{n}", "drama") for n in range(3)]
    comedy = bench.content("comics", "c", "comedy")
    for shown in lists_of(bench, several(bench, 40, {"comics/new": [*dramas, comedy]}), 4):
        assert len(shown) == 4
        assert shown[0].content_id == "c" or shown[1].content_id == "c"


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        # It is Tuesday 2023-11-14 22:13:20 in UTC, Wednesday 07:13 in Tokyo.
        ("blackout: {hours: 22:00-06:00, of: {service: comics}}", "rain"),
        ("blackout: {hours: 22:00-06:00, of: {service: comics}, time_zone: Asia/Tokyo}", "c rain"),
        ("blackout: {hours: 07:00-08:00, of: {service: comics}, time_zone: Asia/Tokyo}", "rain"),
        ("blackout: {hours: 22:00-06:00, of: {service: comics}, weekdays: [mon, wed]}", "c rain"),
        ("blackout: {hours: 22:00-06:00}", ""),
        ("blackout: {hours: 22:14-24:00}", "c rain"),
        ("country: {of: {service: comics}, only: [jp]}", "rain"),
        ("country: {of: {service: comics}, only: [jp], unknown: show}", "c rain"),
        ("country: {of: {service: comics}, never: [jp]}", "rain"),
        ("country: {attribute: countries}", "rain"),
        ("freshness_floor: {younger_than: 1d}", "rain"),
        ("freshness_floor: {younger_than: 3d}", "c rain"),
    ],
)
def test_what_is_barred_for_a_user_of_whom_nothing_is_known(rule: str, shown: str) -> None:
    bench = bench_of(rule)
    comic = bench.content("comics", "c", countries="JP|KR", age_s=2 * 86400.0)
    rain = bench.content("weather", "rain", age_s=60.0)
    answered = run(bench, models(bench), [bench.user("ann", {"comics/new": [comic], "weather/today": [rain]})], count=2)
    explained(answered)
    assert " ".join(sorted(ids(decisions(answered)["ann"]).split())) == shown


def test_hours_and_countries_are_the_users_own_by_context_then_profile() -> None:
    bench = bench_of("blackout: {hours: 07:00-08:00, of: {content: comics/morning}}", "country: {attribute: countries}")
    mapped = {
        "comics/new": [bench.content("comics", "morning"), bench.content("comics", "abroad", countries="jp")],
        "weather/today": [bench.content("weather", "rain")],
    }
    bench.user("tokyo", mapped, profile={"country": "JP", "time_zone": "Asia/Tokyo"})
    bench.user("travels", mapped, profile={"country": "JP", "time_zone": "Asia/Tokyo"})
    bench.user("nowhere", mapped, profile={"time_zone": "Mars/Olympus"})
    requests = [
        SelectionRequest("head", "tokyo", {}, 3),
        SelectionRequest("head", "travels", {"country": "kr", "time_zone": "Europe/Berlin"}, 3),
        SelectionRequest("head", "nowhere", {}, 3),
    ]
    (answered,) = asyncio.run(
        bench.pipeline(models(bench)).run(group_requests(bench.placements, requests), BenchReads(bench))
    )
    shown = {user: set(ids(each).split()) for user, each in decisions(answered).items()}
    assert shown == {
        "tokyo": {"abroad", "rain"},
        "travels": {"morning", "rain"},
        "nowhere": {"morning", "rain"},
    }


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        ("frequency_cap: {shown: 2, days: 3}", {"other", "rain"}),
        ("frequency_cap: {shown: 3, days: 3}", {"ad1", "ad2", "other", "rain"}),
        ("frequency_cap: {per: campaign, shown: 3, days: 3}", {"other", "rain"}),
        ("frequency_cap: {per: campaign, shown: 3, days: 1}", {"ad1", "ad2", "other", "rain"}),
        ("frequency_cap: {per: service, shown: 4, days: 8}", {"rain"}),
        ("frequency_cap: {per: service, shown: 4, days: 8, of: {content: comics/ad1}}", {"ad2", "other", "rain"}),
    ],
)
def test_frequency_caps_count_contents_services_and_campaigns_over_days(rule: str, shown: set[str]) -> None:
    bench = bench_of(rule)
    comics = [bench.content("comics", each, campaign="spring") for each in ("ad1", "ad2")]
    comics.append(bench.content("comics", "other", campaign="autumn"))
    day = 86400.0
    past = [("comics", "ad1", 2 * day), ("comics", "ad2", day), ("comics", "ad1", day), ("comics", "other", 0.0)]
    mapped = {"comics/new": comics, "weather/today": [bench.content("weather", "rain")]}
    if "per: campaign" not in rule and "per: service" not in rule:
        past.append(("comics", "ad2", 0.0))
    ann = bench.user("ann", mapped, shown=past)
    bob = bench.user("bob", mapped)
    found = decisions(run(bench, models(bench), [ann, bob], count=4))
    assert set(ids(found["ann"]).split()) == shown
    assert len(found["bob"]) == 4


def test_a_freshness_floor_with_a_number_is_a_quota_of_young_ones() -> None:
    bench = bench_of("freshness_floor: {younger_than: 1h, at_least: 1, first: 2}")
    old = [bench.content("comics", f"old{n}", age_s=86400.0) for n in range(6)]
    young = bench.content("comics", "young", age_s=60.0)
    for shown in lists_of(bench, several(bench, 30, {"comics/new": [*old, young]}), 3):
        assert "young" in ids(shown[:2])


def test_rules_hold_over_what_the_fallback_fills_in() -> None:
    bench = bench_of("cap_per_attribute: {attribute: genre, most: 1}", "spread: {attribute: genre, apart: 2}")
    own = bench.content("comics", "own", "drama")
    popular = [bench.content("comics", "p1", "drama"), bench.content("comics", "p2", "war")]
    users = [bench.user("ann", {"comics/new": [own]})]
    (shown,) = decisions(run(bench, models(bench, popular), users, count=3)).values()
    assert ids(shown) == "own p2"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            ["pin: {of: {content: comics/a}, position: 1}", "pin: {of: {content: comics/b}, position: 1}"],
            r"rules\.1\.pin\.position: 1 is pinned by rule 0",
        ),
        (
            ["pin: {of: {content: comics/a}, position: 1}", "pin: {of: {content: comics/a}, position: 2}"],
            r"rules\.1\.pin\.of\.content: 'comics/a' is pinned at another position",
        ),
        (["quota: {of: {service: comics}, at_least: 3, first: 2}"], "3 of the first 2 positions cannot be"),
        (
            [
                "quota: {of: {service: comics}, at_least: 2, first: 3}",
                "quota: {of: {service: weather}, at_least: 2, first: 3}",
            ],
            "within the first 3 positions want 4",
        ),
        (
            [
                "pin: {of: {content: comics/a}, position: 0}",
                "quota: {of: {service: weather}, at_least: 2, first: 2}",
            ],
            "the quotas and 1 pins within the first 2 positions want 3",
        ),
        (
            ["cap_per_service: {most: 1}", "quota: {of: {service: comics}, at_least: 2, first: 4}"],
            "2 of comics: cap_per_service allows 1",
        ),
        (["boost: {of: {service: comcs}, by: 1.0}"], "'comcs' is no service that the placement shows; did you mean"),
        (["pin: {of: {content: films/a}, position: 0}"], "'films' is no service that the placement shows"),
        (["boost: {of: {service: comics}}"], "exactly one of by and share"),
        (["boost: {of: {}, by: 1.0}"], "is about no content"),
        (["boost: {of: {attribute: label}, by: 1.0}"], "attribute and values belong together"),
        (["blackout: {hours: 22-6}"], "is no span of hours"),
        (["blackout: {hours: 06:00-06:00}"], "begins when it ends"),
        (["blackout: {hours: 22:00-06:00, time_zone: Mars/Olympus}"], "no time zone is called"),
        (["country: {}"], "says no country"),
        (["country: {only: [no]}"], "write it in quotes"),
        (["country: {only: [jp], never: [JP]}"], "'JP' is in only and in never"),
        (["freshness_floor: {younger_than: 1d, at_least: 2}"], "at_least and first belong together"),
        (["frequency_cap: {shown: 1, days: 9}"], "frequency_cap.days: .*less than or equal to 8"),
        (["diversity: {penalty: 1.0}"], "exactly one of attribute and `vectors: true`"),
        (["cap_per_service: {most: 0}"], "most: .*greater than or equal to 1"),
        (["boost: {of: {service: comics}, by: 1.0e+39}"], "by: .*less than or equal to 1000000"),
        (["diversity: {penalty: 1.0e+39, attribute: genre}"], "penalty: .*less than or equal to 1000000"),
        (["pin: {of: {service: comics}, position: 10000}"], "position: .*less than 50"),
        (["capp: {most: 1}"], "rules.0.capp: unknown key"),
        (["{cap_per_service: {most: 1}, spread: {attribute: genre}}"], "names 2 rules"),
    ],
)
def test_rules_that_cannot_be_are_errors_that_name_the_key(written: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        bench_of(*written)


def test_a_pin_that_is_in_a_quota_wants_no_position_of_its_own() -> None:
    rules = ["pin: {of: {content: comics/a}, position: 1}", "quota: {of: {service: comics}, at_least: 2, first: 2}"]
    bench = bench_of(*rules)
    comics = [bench.content("comics", name) for name in "abc"]
    users = several(bench, 20, {"weather/today": [bench.content("weather", "sun")], "comics/new": comics})
    assert {each[1].content_id for each in lists_of(bench, users, 3)} == {"a"}
    assert {each[0].content_id for each in lists_of(bench, users, 3)} == {"b", "c"}
    with pytest.raises(ConfigurationError, match="the quotas and 1 pins within the first 2 positions want 3"):
        bench_of(rules[0].replace("comics", "weather"), rules[1])


def test_rules_of_one_kind_are_told_apart_and_keep_their_order() -> None:
    bench = bench_of("boost: {of: {service: comics}, by: 1.0}", "boost: {of: {service: weather}, by: 1.0}")
    comics, rain = bench.content("comics", "c"), bench.content("weather", "w")
    answered = run(bench, models(bench), several(bench, 1, {"comics/new": [comics], "weather/today": [rain]}))
    assert list(answered.slate.rounds[0].constraints) == ["boost", "boost_2"]
    assert parse_mesh(bench.text).placements["head"].rules[1].kind == "boost"


def test_what_a_rule_costs_is_the_reward_that_lists_earn_less_for_it() -> None:
    """Greedy, one position: buried 0.5 deep, the better content (0.3 against 0.1) is not shown: a cost of 0.2."""
    bench = bench_of(
        "bury: {of: {content: comics/good}, by: 0.5}", "cap_per_service: {most: 9}", explore="{greedy: {}}"
    )
    proposals = {"comics/new": [bench.content("comics", "good"), bench.content("comics", "poor")]}
    slate = run(bench, models(bench), several(bench, 3, proposals), count=1).slate
    scores = Scores(np.array([0.3, 0.1] * 3, np.float32), np.zeros(6, np.float32))
    metrics = EngineMetrics(CollectorRegistry())
    costs = RuleCosts(metrics, every=2)
    for _ in range(3):
        costs.look(
            replace(slate, rounds=(replace(slate.rounds[0], scores=scores),)), rules.enabled(bench.placement.config)
        )
    found = {each: metrics.rule_cost.labels("head", each)._value.get() for each in ("bury", "cap_per_service", "all")}
    assert found == {"bury": pytest.approx(0.2), "cap_per_service": 0.0, "all": pytest.approx(0.2)}


@pytest.mark.parametrize(
    "rule",
    [
        "cap_per_service: {most: 1}",
        "cap_per_attribute: {attribute: genre, most: 1}",
        "spread: {attribute: genre, apart: 3}",
        "diversity: {attribute: genre, penalty: 0.5}",
    ],
)
def test_a_rule_takes_a_batch_in_which_nobody_has_a_candidate(rule: str) -> None:
    bench = bench_of(rule)
    assert lists_of(bench, [bench.user("ada", {}), bench.user("bob", {})], 3) == [[], []]
