from __future__ import annotations

import numpy as np
import pytest

from banditmesh.replay.tally import CURVE_POINTS, Tally


def fed(rewards: np.ndarray) -> Tally:
    tally = Tally()
    for reward in rewards.tolist():
        tally.add(reward)
    return tally


def test_mean_and_variance_are_those_of_all_rewards() -> None:
    rewards = np.random.default_rng(0).normal(5, 2, 1000)
    tally = fed(rewards)
    assert tally.mean == pytest.approx(rewards.mean(), rel=1e-12)
    assert tally.variance == pytest.approx(rewards.var(ddof=1) / 1000, rel=1e-9)


@pytest.mark.parametrize("n", [1, 7, CURVE_POINTS, CURVE_POINTS + 1, 10_001])
def test_the_curve_is_exact_where_it_has_points_and_never_long(n: int) -> None:
    rewards = np.random.default_rng(1).random(n)
    curve = fed(rewards).curve()
    assert len(curve) <= CURVE_POINTS + 1
    assert curve[-1].decisions == n
    start = 0
    for point in curve:
        assert point.so_far == pytest.approx(rewards[: point.decisions].mean(), rel=1e-9)
        assert point.lately == pytest.approx(rewards[start : point.decisions].mean(), rel=1e-6)
        start = point.decisions


def test_a_run_without_a_match_has_an_empty_curve() -> None:
    assert Tally().curve() == []
