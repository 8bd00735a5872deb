from __future__ import annotations

import math

import numpy as np
import pytest

from banditmesh.ope.interval import UNKNOWN, Interval, lower, student, untransformed, upper
from banditmesh.ope.moments import Moments

FIRST = np.array([1.0, 0.0])


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (30, 2.0423), (10**6, 1.95996)]
)
def test_quantiles_of_student_are_those_of_the_tables(freedom: int, value: float) -> None:
    assert student(0.975, freedom) == pytest.approx(value, rel=2e-3)
    assert student(0.025, freedom) == pytest.approx(-value, rel=2e-3)


@pytest.mark.parametrize("k", [-0.8, -0.1, 0.0, 1e-9, 0.05, 0.4, 1.5])
def test_untransformed_is_the_inverse_of_halls_cubic(k: float) -> None:
    for quantile in (-3.0, -1.96, 0.0, 0.7, 1.96):
        t = untransformed(quantile, k, 1000)
        assert t + k * t**2 / 3 + k**2 * t**3 / 27 + k / 6 == pytest.approx(quantile, abs=1e-6)


def test_without_skewness_and_surprise_it_is_the_t_interval() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    moments = Moments()
    moments.add(np.column_stack((values, np.ones(5))))
    with_worst = np.append(values, 3.0)  # a row in the middle is no surprise
    half = student(0.975, 5) * with_worst.std(ddof=1) / math.sqrt(6)
    assert lower(moments, FIRST, (3.0, 1.0), 0.95) == pytest.approx(-half, rel=1e-9)
    assert upper(moments, FIRST, (3.0, 1.0), 0.95) == pytest.approx(half, rel=1e-9)


def test_the_interval_reaches_further_on_the_side_of_the_tail() -> None:
    moments = Moments()
    moments.add(np.column_stack((np.random.default_rng(0).exponential(size=400), np.ones(400))))
    mean = float(moments.mean[0])
    assert upper(moments, FIRST, (mean, 1.0), 0.95) > 1.1 * -lower(moments, FIRST, (mean, 1.0), 0.95)


def test_nothing_ever_seen_may_still_come() -> None:
    """No click in 1000 rows: the exact bound of 97.5 % is 3.7 per 1000."""
    moments = Moments()
    moments.add(np.column_stack((np.zeros(1000), np.ones(1000))))
    assert 0.0037 < upper(moments, FIRST, (1.0, 1.0), 0.95) < 0.01
    assert lower(moments, FIRST, (0.0, 1.0), 0.95) == 0


def test_one_row_says_nothing() -> None:
    assert math.isnan(lower(Moments(1), FIRST, (0.0, 0.0), 0.95))


def test_limits_hold_what_is_beyond_them_and_stand_for_what_is_unknown() -> None:
    unit = Interval(0.0, 1.0)
    assert Interval(-0.5, 0.5).within(unit) == (0.0, 0.5)
    assert Interval(1.5, 2.5).within(unit) == (1.0, 1.0)
    assert UNKNOWN.within(unit) == unit
    assert Interval(0.2, 0.4).stretched_to(0.5) == (0.2, 0.5)
    assert Interval(0.2, 0.4).stretched_to(math.nan) == (0.2, 0.4)
