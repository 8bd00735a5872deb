"""Whoever peeks all the time is misled no more often than the confidence says, and learns what there is to learn."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from banditmesh.experiments.sequence import mixture, multiplier
from benchmarks.experiments.worlds import differences, excludes_zero, peeked

ALPHA = 0.05


@pytest.mark.parametrize(
    ("experiments", "world"),
    [(1000, {"rate": 0.1}), (300, {"rate": 0.3, "spread": 1.0}), (300, {"rate": 0.02, "users": 10.0})],
    ids=["1000 experiments", "people who differ much", "rare clicks"],
)
def test_of_a_a_tests_no_more_than_nominal_are_false_alarms_at_any_look(
    experiments: int, world: dict[str, float]
) -> None:
    """`make bench-experiments` looks at more worlds, more often."""
    alarms = np.zeros(experiments, np.bool_)
    looks = 0
    for sums in peeked(np.random.default_rng(7), experiments, 25, buckets=60, **world):  # type: ignore[arg-type]
        alarms |= excludes_zero(sums, planned=10_000)
        looks += 1
    assert looks == 25
    assert alarms.mean() <= ALPHA


def test_a_fixed_interval_that_is_peeked_at_misleads_several_times_as_often() -> None:
    """The reason for all this; and a check that the simulation can fail."""
    alarms = np.zeros(200, np.bool_)
    z = NormalDist().inv_cdf(1 - ALPHA / 2)
    for sums in peeked(np.random.default_rng(8), 200, 30, buckets=60):
        difference, variance = differences(sums)
        alarms |= np.abs(difference) > z * np.sqrt(variance)
    assert alarms.mean() > 2 * ALPHA


def test_a_difference_is_found_soon() -> None:
    found = np.zeros(100, np.bool_)
    for sums in peeked(np.random.default_rng(9), 100, 25, buckets=60, users=20.0, spread=100.0, lift=0.3):
        found |= excludes_zero(sums, planned=10_000)
    assert found.mean() > 0.9


def test_the_interval_is_narrowest_where_it_was_planned() -> None:
    n = np.logspace(2, 8, 601)
    factors = multiplier(4.0 / n, np.ones(1), alpha=ALPHA, planned=1e5)
    assert n[np.argmin(factors)] == pytest.approx(1e5, rel=0.05)
    # what more or fewer impressions than planned cost; a fixed sample would have 1.96
    cost = {share: factors[n.searchsorted(1e5 * share)] / factors.min() for share in (0.1, 10, 1000)}
    assert cost == pytest.approx({0.1: 1.26, 10: 1.08, 1000: 1.28}, abs=0.02)
    assert factors.min() == pytest.approx(3.035, abs=0.005)


def test_rho_is_the_root_that_it_claims_to_be() -> None:
    rho = mixture(1.0, ALPHA)
    x = 1 / rho + 1
    assert x - np.log(x) == pytest.approx(1 - 2 * np.log(ALPHA), abs=1e-9)


def test_without_information_everything_is_possible() -> None:
    assert np.isinf(multiplier(np.array([0.0, np.nan, 1.0]), np.array([1.0, 1.0, 0.0]), alpha=ALPHA)).all()
