from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.errors import InvalidParams, NotMergeable
from banditmesh.ope.evaluation import ESTIMATORS, WITHOUT_MODEL, Evaluation
from banditmesh.ope.interval import Interval
from banditmesh.ope.mrdr import Recalibration, importance
from banditmesh.ope.rows import Rows

from .worlds import world


def of(rows: Rows, *names: str) -> Evaluation:
    evaluation = Evaluation(names or tuple(ESTIMATORS))
    evaluation.add(rows)
    return evaluation


def test_estimates_are_those_of_the_estimators_alone() -> None:
    rows = world(np.random.default_rng(0), 700, model_bias=0.1).rows
    estimates = of(rows).estimates
    assert list(estimates) == list(ESTIMATORS)
    for name in set(ESTIMATORS) - {"mrdr"}:  # whose reward model the evaluation fits
        alone = ESTIMATORS[name]()
        alone.add(rows)
        assert estimates[name].value == pytest.approx(alone.value, rel=1e-9)
        assert estimates[name].interval == pytest.approx(alone.interval(), rel=1e-6)
        assert estimates[name].normal == pytest.approx(alone.normal(), rel=1e-6)


def test_batches_and_shards_give_what_the_whole_gives() -> None:
    rows = world(np.random.default_rng(1), 900).rows
    names = tuple(name for name in ESTIMATORS if name != "mrdr")
    whole, parts, left = of(rows, *names), Evaluation(names), of(rows.part(rows.keys % 2 == 0), *names)
    for at in np.array_split(np.arange(900), 37):
        parts.add(rows.part(at))
    left.merge(of(rows.part(rows.keys % 2 == 1), *names))
    for each in (parts, left):
        assert each.choice.name == whole.choice.name
        assert each.choice.interval == pytest.approx(whole.choice.interval, rel=1e-6)
        assert each.support.effective == pytest.approx(whole.support.effective)


def test_rows_may_come_after_a_look() -> None:
    rows = world(np.random.default_rng(2), 600).rows
    evaluation = of(rows.part(rows.keys < 100), "ips")
    assert evaluation.estimates["ips"].value == pytest.approx(of(rows.part(rows.keys < 100), "ips").choice.value)
    evaluation.add(rows.part(rows.keys >= 100))
    assert evaluation.estimates["ips"].value == pytest.approx(of(rows, "ips").estimates["ips"].value)


def test_the_choice_is_the_estimator_with_the_smallest_interval() -> None:
    good = of(world(np.random.default_rng(3), 5000).rows, "dr", "snips", "ips")
    assert good.choice.name == "dr"
    rows = world(np.random.default_rng(3), 5000).rows
    noise = np.random.default_rng(4).normal(size=5000) * 3  # a model that is worse than none
    bad = of(
        Rows.checked(rows.keys, rows.rewards, rows.propensities, rows.targets, noise, -noise), "dr", "snips", "ips"
    )
    assert bad.choice.name == "snips"


def test_the_choice_covers_although_it_is_the_smallest_of_many() -> None:
    covered = 0
    for seed in range(100):
        true = world(np.random.default_rng(seed), 500)
        lower, upper = of(true.rows).choice.interval
        covered += lower <= true.value <= upper
    assert covered >= 93


def test_no_estimator_with_a_bias_is_chosen() -> None:
    assert (
        of(world(np.random.default_rng(5), 500).rows, "dm", "switch", "dros", "clipped_ips", "ips").choice.name == "ips"
    )


def test_without_support_the_choice_is_the_bounds() -> None:
    rewards = (np.arange(1000) % 2).astype(float)
    choice = of(Rows.checked(range(1000), rewards, np.ones(1000), np.full(1000, 0.1)), *WITHOUT_MODEL).choice
    assert choice.name == "bounds"
    assert choice.value == pytest.approx(0.5)
    assert choice.interval.width > 0.9


def test_a_value_that_no_policy_can_have_is_not_chosen() -> None:
    rows = world(np.random.default_rng(6), 500).rows
    broken = Rows.checked(rows.keys, rows.rewards, [1e-300, *rows.propensities[1:]], rows.targets)
    assert 0 <= of(broken).choice.value <= 1


def test_a_stated_range_of_rewards_reaches_the_intervals() -> None:
    rows = world(np.random.default_rng(7), 200).rows
    wide = Evaluation(rewards=Interval(0.0, 5.0))
    wide.add(rows)
    assert wide.estimates["ips"].interval.upper > 1.2 * of(rows).estimates["ips"].interval.upper


def test_evaluations_of_other_estimators_do_not_add_up() -> None:
    with pytest.raises(NotMergeable):
        Evaluation(("ips",)).merge(Evaluation(("dr",)))
    with pytest.raises(InvalidParams, match="no estimator"):
        Evaluation(("magic",))


def test_importance_is_worked_out_by_hand() -> None:
    rows = Rows.checked([1, 2], [1.0, 0.0], [0.5, 0.1], [0.5, 0.2])
    assert importance(rows) == pytest.approx([0.5 * 0.5 / 0.25, 0.2 * 0.9 / 0.01])


def test_a_recalibrated_model_is_the_line_that_fits_best_where_it_counts() -> None:
    rng = np.random.default_rng(8)
    n = 20_000
    q, p = rng.random(n), rng.uniform(0.05, 0.9, n)
    rewards = 0.3 + 0.5 * q + rng.normal(size=n) * 0.1
    rows = Rows.checked(range(n), rewards, p, rng.random(n), q, q)
    recalibration = Recalibration()
    recalibration.add(rows)
    assert recalibration.line == pytest.approx((0.3, 0.5), abs=0.02)
    assert recalibration.applied(rows).predicted == pytest.approx(0.3 + 0.5 * q, abs=0.03)


def test_a_recalibration_without_rows_changes_nothing() -> None:
    assert Recalibration().line == (0, 1)


def test_mrdr_mends_a_model_that_is_wrong_by_a_line() -> None:
    true = world(np.random.default_rng(9), 4000)
    rows = true.rows
    wrong = Rows.checked(
        rows.keys, rows.rewards, rows.propensities, rows.targets, 2 - rows.expected, 2 - rows.predicted
    )
    estimates = of(wrong).estimates
    assert estimates["mrdr"].interval.width < 0.85 * estimates["dr"].interval.width
    assert estimates["mrdr"].interval.lower < true.value < estimates["mrdr"].interval.upper
