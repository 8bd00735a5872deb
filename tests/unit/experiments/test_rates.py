"""People are the unit, and what was known of them before is taken off."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.experiments.rates import BeforeSums, adjusted, rates


def test_a_rate_and_its_variance_by_hand() -> None:
    # two buckets: 1 of 2 and 3 of 4; R = 4/6, residuals 1 - 4/3 = -1/3 and 3 - 8/3 = 1/3; 2 · (2/9) / 36
    found = rates(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    assert found.values == pytest.approx(2 / 3)
    assert found.variances == pytest.approx(2 * (2 / 9) / 36)


def test_people_who_come_again_count_once() -> None:
    """Impressions as the unit would claim a variance that is ten times too small."""
    rng = np.random.default_rng(1)
    people = rng.random((2000, 400)) < 0.5  # each person clicks always or never, and comes ten times
    found = rates(10.0 * people, np.full(people.shape, 10.0))
    assert found.variances.mean() == pytest.approx(found.values.var(), rel=0.15)


def test_nothing_shown_is_no_rate() -> None:
    assert np.isnan(rates(np.zeros(4), np.zeros(4)).values)


def world(rng: np.random.Generator, n: int, effect: float) -> tuple[np.ndarray, np.ndarray, BeforeSums]:
    """Buckets whose rates last: before and after."""
    own = rng.beta(1, 4, (2, n))
    shown = rng.poisson(30, (2, n)).astype(float)
    before = rng.poisson(30, (2, n)).astype(float)
    earned = rng.binomial(before.astype(int), own).astype(float)
    own[1] = np.minimum(own[1] + effect, 1)
    return rng.binomial(shown.astype(int), own).astype(float), shown, BeforeSums(earned, before)


def test_cuped_is_unbiased_and_takes_most_of_the_variance_off() -> None:
    rng = np.random.default_rng(2)
    differences, variances, plain = [], [], []
    for _ in range(300):
        clicks, shown, before = world(rng, 200, effect=0.02)
        found = adjusted(clicks, shown, before)
        differences.append(found.values[1] - found.values[0])
        variances.append(found.variances.sum())
        plain.append(rates(clicks, shown).variances.sum())
    assert np.mean(differences) == pytest.approx(0.02, abs=4 * np.std(differences) / 300**0.5)
    assert np.mean(variances) == pytest.approx(np.var(differences), rel=0.25)
    assert np.mean(variances) < 0.4 * np.mean(plain)


def test_cuped_without_a_pre_period_changes_nothing() -> None:
    clicks, shown, _ = world(np.random.default_rng(3), 50, 0.0)
    nothing = BeforeSums(np.zeros_like(clicks), np.zeros_like(shown))
    assert np.array_equal(adjusted(clicks, shown, nothing).values, rates(clicks, shown).values)
