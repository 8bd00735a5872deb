"""What one policy earns more than another, row by row: narrow, right, and silent about what the log cannot tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from banditmesh.bandits.errors import NotMergeable
from banditmesh.ope.difference import Difference, Pair
from banditmesh.ope.evaluation import Evaluation
from banditmesh.ope.interval import Interval
from banditmesh.ope.rows import Rows

CLICKS = np.array([0.1, 0.3, 0.5, 0.6])
LOGGED = np.array([0.4, 0.3, 0.2, 0.1])
BASE = np.full(4, 0.25)
POLICY = np.array([0.1, 0.2, 0.3, 0.4])
BARRED = (np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.4, 0.3, 0.3, 0.0]))
"""The log and the base, where a rule keeps the last content away: nobody knows what it earns."""


def world(seed: int, n: int, share: float, logged: Any = LOGGED, base: Any = BASE) -> tuple[Pair, float]:
    """n decisions of which a share is made otherwise, and the true difference."""
    rng = np.random.default_rng(seed)
    moved = rng.random(n) < share
    shown, at = rng.choice(4, n, p=logged), np.arange(n)
    rewards = (rng.random(n) < CLICKS[shown]).astype(float)
    model = CLICKS + np.array([0.1, 0.0, -0.1, -0.1])
    before = np.broadcast_to(base, (n, 4))
    after = np.where(moved[:, None], POLICY, base)
    policy, other = (
        Rows.checked(at, rewards, logged[shown], each[at, shown], each @ model, model[shown])
        for each in (after, before)
    )
    return Pair(policy, other, np.abs(after - before).sum(axis=1) / 2), share * float((POLICY - base) @ CLICKS)


def found(*pairs: Pair, **settings: Any) -> Difference:
    made = Difference(**settings)
    for pair in pairs:
        made.add(pair)
    return made


@pytest.mark.parametrize(("n", "share", "log"), [(150, 1.0, ()), (150, 0.2, ()), (600, 0.1, ()), (300, 0.3, BARRED)])
def test_over_200_logs_intervals_of_95_percent_cover_the_truth_in_92_at_least(
    n: int, share: float, log: tuple[Any, ...]
) -> None:
    covered = 0
    for seed in range(200):
        pair, truth = world(seed, n, share, *log)
        lower, upper = found(pair).estimate.interval
        covered += lower <= truth <= upper
    assert covered / 200 >= 0.92


def test_it_is_known_better_than_two_values_that_are_subtracted() -> None:
    pair, truth = world(1, 2000, 0.1)
    paired, apart = found(pair).estimate.interval, []
    for rows in (pair.policy, pair.base):
        evaluation = Evaluation(["dr"])
        evaluation.add(rows)
        apart.append(evaluation.estimates["dr"].interval.width)
    assert paired.lower <= truth <= paired.upper
    assert paired.width < 0.5 * min(apart)


def test_where_nothing_moves_the_difference_is_0_whatever_the_log_supports() -> None:
    pair, _ = world(1, 300, 0.0)
    lost = pair.policy.part(np.arange(300))
    lost = Rows(lost.keys, lost.rewards, lost.propensities, lost.targets * 0.5, lost.expected, lost.predicted)
    difference = found(Pair(lost, lost, pair.moved))
    assert (difference.estimate.value, difference.estimate.interval, difference.moved) == (0.0, (0.0, 0.0), 0.0)


def test_weights_that_are_too_large_by_chance_tell_of_no_more_than_all() -> None:
    told = [found(world(seed, 100, 0.3)[0]).told for seed in range(20)]
    assert max(told) == 1.0
    assert min(told) > 0.5


def test_what_was_barred_counts_with_the_least_and_the_largest_reward() -> None:
    pair, truth = world(1, 1000, 0.3, *BARRED)
    difference = found(pair)
    assert difference.shifted
    assert difference.told == pytest.approx(0.5, abs=0.1)  # all of what goes, and nothing of what comes
    estimate = difference.estimate
    assert estimate.name == "bounds"
    assert estimate.interval.lower <= truth <= estimate.interval.upper
    missing = 0.3 * 0.4
    assert missing < estimate.interval.width < 1.5 * missing


def test_the_range_of_the_rewards_may_be_said() -> None:
    pair, _ = world(1, 1000, 0.3, *BARRED)
    width = found(pair).estimate.interval.width
    assert found(pair, rewards=Interval(0.0, 2.0)).estimate.interval.width > 1.5 * width


def test_neither_batches_nor_merging_change_anything() -> None:
    pair, _ = world(1, 400, 0.5)
    whole, first, second = found(pair), Difference(), Difference()
    at = np.arange(400)
    first.add(pair.part(at < 100))
    second.add(pair.part((at >= 100) & (at < 250)))
    second.add(pair.part(at >= 250))
    first.merge(second)
    assert (first.n, first.moved) == (400, pytest.approx(whole.moved))
    assert [*first.estimate.interval, first.estimate.value] == pytest.approx(
        [*whole.estimate.interval, whole.estimate.value]
    )
    with pytest.raises(NotMergeable):
        first.merge(Difference(confidence=0.9))


def test_before_the_first_row_nothing_is_known() -> None:
    estimate = Difference().estimate
    assert np.isnan(estimate.value)
    assert estimate.interval == (-1, 1)
