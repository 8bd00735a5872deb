"""What each rule blocks, where, and with which propensities the rest is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.runtime import rule_options
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import parse_mesh
from services.crs_engine.pipeline import rules
from tests.support.engine_batch import Bench, decisions, run
from tests.support.engine_world import MESH
from tests.support.fixed_models import models

EVEN = MESH.replace("explore: {greedy: {}}", "explore: {epsilon_greedy: {epsilon: 1.0}}")
CAPPED = EVEN.replace("    experiment:", "    rules: {cap_per_service: {most: 1}}\n    experiment:")


def two_comics_and_rain(bench: Bench, n_users: int) -> list[str]:
    comics = [bench.content("comics", f"c{n}") for n in range(2)]
    rain = bench.content("weather", "rain")
    return [bench.user(f"user{n}", {"comics/new": comics, "weather/today": [rain]}) for n in range(n_users)]


def test_a_list_has_no_more_of_a_service_than_the_cap_and_its_propensities_are_exact() -> None:
    """Of two comics and rain each comes first with 1/3; after a comic there is but rain, after rain either comic."""
    bench = Bench(CAPPED)
    users = two_comics_and_rain(bench, 600)
    lists = decisions(run(bench, models(bench), users, count=3))
    assert {tuple(each.service for each in shown) for shown in lists.values()} == {
        ("comics", "weather"),
        ("weather", "comics"),
    }
    for shown in lists.values():
        second = 1.0 if shown[0].service == "comics" else 1 / 2
        assert [each.propensity for each in shown] == pytest.approx([1 / 3, second])
    rain_first = np.mean([shown[0].service == "weather" for shown in lists.values()])
    assert rain_first == pytest.approx(1 / 3, abs=4 * 0.5 / len(users) ** 0.5)


def test_without_the_rule_the_list_has_both_comics() -> None:
    bench = Bench(EVEN)
    (shown,) = decisions(run(bench, models(bench), two_comics_and_rain(bench, 1), count=3)).values()
    assert len(shown) == 3


def test_a_single_selection_is_not_touched_by_the_cap() -> None:
    bench = Bench(CAPPED)
    answered = run(bench, models(bench), two_comics_and_rain(bench, 5))
    assert [dict(each.constraints) for each in answered.slate.rounds] == [{}]


def test_the_cap_counts_what_is_on_the_list_already_when_the_fallback_fills_it() -> None:
    bench = Bench(CAPPED.replace("most: 1", "most: 2"))
    popular = [bench.content("comics", f"p{n}") for n in range(5)]
    user = bench.user("ann", {"comics/new": [bench.content("comics", "own")]})
    (shown,) = decisions(run(bench, models(bench, popular), [user], count=5)).values()
    assert [each.service for each in shown] == ["comics", "comics"]
    assert shown[0].content_id == "own"


def test_users_do_not_count_for_each_other() -> None:
    bench = Bench(CAPPED)
    lists = decisions(run(bench, models(bench), two_comics_and_rain(bench, 40), count=2))
    assert all(len(shown) == 2 for shown in lists.values())


def test_every_rule_has_its_parameters_in_mesh_yaml_under_its_name() -> None:
    assert {each.name for each in rules.RULES} == set(rule_options.Rule.model_fields)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("cap_per_servce: {most: 1}", "rules.cap_per_servce: unknown key; did you mean 'cap_per_service'"),
        ("cap_per_service: {}", "rules.cap_per_service.most: is missing"),
        ("cap_per_service: {most: 0}", "rules.cap_per_service.most: .*greater than or equal to 1"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error_that_names_the_key(written: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_mesh(MESH.replace("    experiment:", f"    rules: {{{written}}}\n    experiment:"))
