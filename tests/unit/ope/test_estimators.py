from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from banditmesh.bandits.errors import InvalidBatch, InvalidParams, NotMergeable
from banditmesh.ope.bounds import Bounds
from banditmesh.ope.clipped_ips import ClippedIps
from banditmesh.ope.dm import Dm
from banditmesh.ope.dr import Dr
from banditmesh.ope.dros import Dros
from banditmesh.ope.estimator import Estimator
from banditmesh.ope.ips import Ips
from banditmesh.ope.mrdr import Mrdr
from banditmesh.ope.rows import Rows
from banditmesh.ope.snips import Snips
from banditmesh.ope.switch import Switch

from .worlds import world

ALL: list[Callable[[], Estimator]] = [Ips, ClippedIps, Snips, Dm, Dr, Mrdr, Switch, Dros, Bounds]
THREE = Rows.checked(
    keys=[1, 2, 3],
    rewards=[1.0, 0.0, 1.0],
    propensities=[0.5, 0.25, 0.1],
    targets=[0.5, 0.5, 0.4],  # weights 1, 2, 4
    expected=[0.6, 0.2, 0.4],
    predicted=[0.5, 0.5, 0.75],
)


def fed(make: Callable[[], Estimator], rows: Rows) -> Estimator:
    estimator = make()
    estimator.add(rows)
    return estimator


@pytest.mark.parametrize(
    ("make", "by_hand"),
    [
        (Ips, (1 + 0 + 4) / 3),
        (lambda: ClippedIps(clip=3), (1 + 0 + 3) / 3),
        (Snips, (1 + 0 + 4) / (1 + 2 + 4)),
        (Dm, (0.6 + 0.2 + 0.4) / 3),
        (Dr, (0.6 + 1 * 0.5 + 0.2 - 2 * 0.5 + 0.4 + 4 * 0.25) / 3),
        (Mrdr, (0.6 + 1 * 0.5 + 0.2 - 2 * 0.5 + 0.4 + 4 * 0.25) / 3),
        (lambda: Switch(tau=2), (0.6 + 1 * 0.5 + 0.2 - 2 * 0.5 + 0.4) / 3),
        (lambda: Dros(shrinkage=4), (0.6 + 4 / 5 * 0.5 + 0.2 - 1 * 0.5 + 0.4 + 4 / 5 * 0.25) / 3),
        (Bounds, 1 / 2 + (1 * 0.5 - 2 * 0.5 + 4 * 0.5) / 3),
    ],
    ids=["ips", "clipped", "snips", "dm", "dr", "mrdr", "switch", "dros", "bounds"],
)
def test_three_rows_give_what_one_works_out_by_hand(make: Callable[[], Estimator], by_hand: float) -> None:
    assert fed(make, THREE).value == pytest.approx(by_hand, rel=1e-12)


def test_the_normal_interval_of_ips_is_that_of_a_mean() -> None:
    terms = np.array([1.0, 0.0, 4.0])
    half = 1.959964 * terms.std(ddof=1) / math.sqrt(3)
    assert fed(Ips, THREE).normal() == pytest.approx((terms.mean() - half, terms.mean() + half), rel=1e-6)


def test_the_normal_interval_of_snips_is_that_of_a_ratio() -> None:
    weights, rewards = np.array([1.0, 2.0, 4.0]), np.array([1.0, 0.0, 1.0])
    value = 5 / 7
    variance = ((weights * (rewards - value)) ** 2).sum() / (3 * 2 * weights.mean() ** 2)
    half = 1.959964 * math.sqrt(variance)
    assert fed(Snips, THREE).normal() == pytest.approx((value - half, value + half), rel=1e-6)


@pytest.mark.parametrize("make", ALL)
def test_two_halves_add_up_to_the_whole(make: Callable[[], Estimator]) -> None:
    rng = np.random.default_rng(1)
    rows = world(rng, 3000).rows
    half = rng.random(3000) < 0.3
    whole, left, right = fed(make, rows), fed(make, rows.part(half)), fed(make, rows.part(~half))
    left.merge(right)
    assert left.n == whole.n
    assert left.value == pytest.approx(whole.value, rel=1e-12)
    assert left.normal() == pytest.approx(whole.normal(), rel=1e-12)
    assert left.interval() == pytest.approx(whole.interval(), rel=1e-9)


@pytest.mark.parametrize("make", ALL)
def test_batches_of_any_size_give_the_same(make: Callable[[], Estimator]) -> None:
    rows = world(np.random.default_rng(2), 500).rows
    whole, parts = fed(make, rows), make()
    for at in np.array_split(np.arange(500), [3, 3, 100, 499]):
        parts.add(rows.part(at))
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    assert parts.interval() == pytest.approx(whole.interval(), rel=1e-9)


def test_a_better_reward_model_leaves_dr_a_narrower_interval_than_ips() -> None:
    rows = world(np.random.default_rng(3), 2000).rows
    dr, ips = fed(Dr, rows).normal(), fed(Ips, rows).normal()
    assert dr.upper - dr.lower < 0.8 * (ips.upper - ips.lower)


def test_dr_is_right_when_only_the_propensities_are() -> None:
    true = world(np.random.default_rng(4), 50_000, model_bias=0.2)
    assert fed(Dr, true.rows).value == pytest.approx(true.value, abs=0.02)
    assert abs(fed(Dm, true.rows).value - true.value) > 0.15


def test_dr_is_right_when_only_the_reward_model_is() -> None:
    true = world(np.random.default_rng(5), 50_000, wrong_propensities=True)
    assert fed(Dr, true.rows).value == pytest.approx(true.value, abs=0.02)
    assert abs(fed(Ips, true.rows).value - true.value) > 0.05


def test_without_a_reward_model_dr_is_ips() -> None:
    rows = Rows.checked([1, 2], [1.0, 0.0], [0.5, 0.5], [0.9, 0.1])
    assert fed(Dr, rows).value == fed(Ips, rows).value


def test_snips_moves_with_a_shift_of_all_rewards() -> None:
    rows = world(np.random.default_rng(6), 400).rows
    shifted = Rows.checked(rows.keys, rows.rewards + 10, rows.propensities, rows.targets)
    assert fed(Snips, shifted).value == pytest.approx(fed(Snips, rows).value + 10, rel=1e-12)


def test_the_interval_of_large_rewards_does_not_cancel_away() -> None:
    ones = np.ones(1000)
    rewards = np.random.default_rng(7).normal(size=1000)
    near, far = (fed(Ips, Rows.checked(np.arange(1000), rewards + shift, ones, ones)).normal() for shift in (0.0, 1e9))
    assert far.upper - far.lower == pytest.approx(near.upper - near.lower, rel=1e-6)


@pytest.mark.parametrize("make", ALL)
def test_nothing_is_known_before_the_first_row(make: Callable[[], Estimator]) -> None:
    estimator = make()
    assert math.isnan(estimator.value)
    assert all(math.isnan(bound) for bound in estimator.normal())
    assert estimator.interval() == (0, 1)


def test_a_policy_that_shares_nothing_with_the_log_has_no_snips() -> None:
    nothing = Rows.checked([1, 2], [1.0, 1.0], [0.5, 0.5], [0.0, 0.0])
    assert math.isnan(fed(Snips, nothing).value)
    assert fed(Ips, nothing).value == 0


def test_different_estimators_do_not_add_up() -> None:
    with pytest.raises(NotMergeable):
        Ips().merge(Snips())  # type: ignore[arg-type]
    with pytest.raises(NotMergeable):
        ClippedIps(clip=3).merge(ClippedIps(clip=4))
    with pytest.raises(NotMergeable):
        Switch(tau=3).merge(Switch(tau=4))
    with pytest.raises(NotMergeable):
        Dros(shrinkage=3).merge(Dros(shrinkage=4))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: ClippedIps(clip=0), "clip"),
        (lambda: Switch(tau=-1), "tau"),
        (lambda: Dros(shrinkage=float("nan")), "shrinkage"),
    ],
)
def test_a_parameter_out_of_its_range_is_named(make: Callable[[], Estimator], field: str) -> None:
    with pytest.raises(InvalidParams, match=field):
        make()


def test_switch_and_dros_lie_between_the_direct_method_and_dr() -> None:
    rows = world(np.random.default_rng(8), 400, model_bias=0.2).rows
    dm, dr = fed(Dm, rows).value, fed(Dr, rows).value
    assert fed(lambda: Switch(tau=0), rows).value == fed(lambda: Dros(shrinkage=0), rows).value == pytest.approx(dm)
    assert fed(lambda: Switch(tau=math.inf), rows).value == pytest.approx(dr)
    assert fed(lambda: Dros(shrinkage=math.inf), rows).value == pytest.approx(dr)
    assert dr < fed(lambda: Dros(shrinkage=10), rows).value < dm


@pytest.mark.parametrize("make", [ClippedIps, Dm, Switch, Dros])
def test_the_interval_of_an_estimator_with_a_bias_reaches_to_its_value_and_to_the_unbiased_one(
    make: type[Estimator],
) -> None:
    """Weights of up to 60, so that clipping takes most of the value away, and a model that is far off."""
    true = world(np.random.default_rng(9), 20_000, model_bias=0.2, logging=(0.97, 0.01, 0.01, 0.01))
    estimator = fed(make, true.rows)
    lower, upper = estimator.interval()
    assert lower <= estimator.value <= upper
    assert lower < true.value < upper
    assert abs(estimator.value - true.value) > 0.1


def test_a_weight_out_of_all_proportion_stays_finite() -> None:
    rows = Rows.checked(range(200), [1.0] * 200, [0.5] * 199 + [1e-300], [0.5] * 200)
    ips = fed(Ips, rows)
    assert ips.value == pytest.approx(1e9 / 200, rel=1e-3)
    assert ips.interval() == (0, 1)
    assert (ips.support.largest, ips.support.largest_key) == (pytest.approx(1e9), 199)
    assert ips.support.effective == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("field", "columns"),
    [
        ("propensities", ([1.0, 1.0], [0.5, 0.0], [0.5, 0.5])),
        ("propensities", ([1.0, 1.0], [0.5, float("nan")], [0.5, 0.5])),
        ("targets", ([1.0, 1.0], [0.5, 0.5], [0.5, 1.5])),
        ("rewards", ([1.0, float("inf")], [0.5, 0.5], [0.5, 0.5])),
        ("targets", ([1.0, 1.0], [0.5, 0.5], [0.5])),
    ],
)
def test_a_broken_row_is_refused_by_the_name_of_its_column(field: str, columns: tuple[list[float], ...]) -> None:
    with pytest.raises(InvalidBatch) as refused:
        Rows.checked([1, 2], *columns)
    assert refused.value.field == field


def test_a_single_enormous_weight_does_not_take_the_value_of_the_bounds_out_of_them() -> None:
    n = 500
    weights = np.where(np.arange(n) == 77, 1e9, 1.0)
    rewards = np.where(np.arange(n) == 77, 0.0, np.arange(n) % 2)
    estimate = fed(Bounds, Rows.checked(range(n), rewards, 0.5 / weights, np.full(n, 0.5)))
    lower, upper = estimate.interval()
    assert 0.4 < lower <= estimate.value <= upper
