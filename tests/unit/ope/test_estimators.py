from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from banditmesh.bandits.errors import InvalidBatch, InvalidParams, NotMergeable
from banditmesh.ope.clipped_ips import ClippedIps
from banditmesh.ope.dm import Dm
from banditmesh.ope.dr import Dr
from banditmesh.ope.estimator import Estimator
from banditmesh.ope.ips import Ips
from banditmesh.ope.rows import Rows
from banditmesh.ope.snips import Snips

from .worlds import part, world

ALL: list[Callable[[], Estimator]] = [Ips, ClippedIps, Snips, Dm, Dr]
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
    ],
    ids=["ips", "clipped", "snips", "dm", "dr"],
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
    whole, left, right = fed(make, rows), fed(make, part(rows, half)), fed(make, part(rows, ~half))
    left.merge(right)
    assert left.n == whole.n
    assert left.value == pytest.approx(whole.value, rel=1e-12)
    assert left.normal() == pytest.approx(whole.normal(), rel=1e-12)
    assert left.bootstrap() == pytest.approx(whole.bootstrap(), rel=1e-12)


@pytest.mark.parametrize("make", ALL)
def test_batches_of_any_size_give_the_same(make: Callable[[], Estimator]) -> None:
    rows = world(np.random.default_rng(2), 500).rows
    whole, parts = fed(make, rows), make()
    for at in np.array_split(np.arange(500), [3, 3, 100, 499]):
        parts.add(part(rows, at))
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    assert parts.bootstrap() == pytest.approx(whole.bootstrap(), rel=1e-12)


@pytest.mark.parametrize("kind", ["normal", "bootstrap"])
@pytest.mark.parametrize("make", [Ips, Snips, Dr])
def test_nineteen_of_twenty_intervals_cover_the_truth(make: type[Estimator], kind: str) -> None:
    covered = 0
    for seed in range(200):
        true = world(np.random.default_rng(seed), 300, model_bias=0.1)
        lower, upper = getattr(fed(lambda seed=seed: make(seed=seed), true.rows), kind)()
        covered += lower <= true.value <= upper
    assert 0.89 <= covered / 200 <= 0.99


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
    assert all(math.isnan(bound) for bound in (*estimator.normal(), *estimator.bootstrap()))


def test_a_policy_that_shares_nothing_with_the_log_has_no_snips() -> None:
    nothing = Rows.checked([1, 2], [1.0, 1.0], [0.5, 0.5], [0.0, 0.0])
    assert math.isnan(fed(Snips, nothing).value)
    assert fed(Ips, nothing).value == 0


def test_different_estimators_do_not_add_up() -> None:
    with pytest.raises(NotMergeable):
        Ips().merge(Snips())  # type: ignore[arg-type]
    with pytest.raises(NotMergeable):
        ClippedIps(clip=3).merge(ClippedIps(clip=4))


def test_a_clip_must_be_positive() -> None:
    with pytest.raises(InvalidParams, match="clip"):
        ClippedIps(clip=0)


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
