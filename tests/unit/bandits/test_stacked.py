"""The default policy: a factorization machine beside a regression of each arm, each believed as far as it predicts."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.arm_ridge import ArmRidge
from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.fm import Fm
from banditmesh.bandits.policy import PerArmParams
from banditmesh.bandits.registry import build
from banditmesh.bandits.stacked import Stacked

FIELDS, ARMS = 6, 4


def of_context(x: np.ndarray, arms: np.ndarray, rewards: np.ndarray) -> Examples:
    n = len(arms)
    keys = arms.astype(np.uint64)
    rows = SparseRows(np.arange(n + 1) * x.shape[1], np.tile(np.arange(x.shape[1], dtype=np.uint32) + 5, n), x.ravel())
    return Examples(keys, keys, keys, rows, rewards.astype(np.float32), np.ones(n), np.arange(n) * 1.0, rewards > 0)


def between_arms(x: np.ndarray) -> Candidates:
    """Decisions with these contexts, each between all arms."""
    n = len(x)
    keys = np.tile(np.arange(ARMS, dtype=np.uint64), n)
    rows = SparseRows(np.arange(n + 1) * x.shape[1], np.tile(np.arange(x.shape[1], dtype=np.uint32) + 5, n), x.ravel())
    return Candidates(np.arange(n + 1) * ARMS, keys, keys, keys, rows, SparseRows.empty(n * ARMS))


def world(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated numeric contexts, and the arm that each of them wants."""
    x = rng.normal(0, 1, (n, FIELDS)) @ np.random.default_rng(1).normal(0, 1, (FIELDS, FIELDS))
    wanted = (x @ np.random.default_rng(2).normal(0, 1, (FIELDS, ARMS))).argmax(axis=1)
    return x, wanted


def hits(name: str, n: int, units: np.ndarray | float = 1.0, shift: np.ndarray | float = 0.0) -> float:
    """How often the best mean is that of the wanted arm, after n examples of arms drawn at random."""
    rng = np.random.default_rng(0)
    (x, wanted), arms = world(rng, n), rng.integers(ARMS, size=n)
    policy = build(name)
    policy.learn(of_context((x * units + shift).astype(np.float32), arms, arms == wanted))
    x, wanted = world(rng, 500)
    means = policy.score(between_arms((x * units + shift).astype(np.float32))).mean
    return float((means.reshape(-1, ARMS).argmax(axis=1) == wanted).mean())


def test_it_learns_which_context_wants_which_arm_from_fewer_examples_than_fm() -> None:
    assert hits("stacked", 200) > 0.75
    assert hits("fm", 200) < 0.6


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_fields_in_any_unit_and_a_constant_column_make_no_difference(size: float) -> None:
    units = np.array([size, 1.0, 1.0 / size, 1.0, size, 0.0])
    shift = np.array([3.0 * size, 0.0, 0.0, 5.0, 0.0, 1e4])
    assert hits("stacked", 400, units, shift) > hits("stacked", 400, np.array([1.0] * 5 + [0.0])) - 0.05


def test_an_arm_that_nobody_knows_is_judged_by_what_all_share() -> None:
    rng = np.random.default_rng(3)
    stacked = Stacked()
    x, wanted = world(rng, 200)
    arms = rng.integers(ARMS - 1, size=200)
    stacked.learn(of_context(x.astype(np.float32), arms, arms == wanted))
    asked = between_arms(x[:5].astype(np.float32))
    unseen, known = np.arange(5 * ARMS) % ARMS == ARMS - 1, np.arange(5 * ARMS) % ARMS == 0
    both, alone = stacked.score(asked), Fm._score(stacked, asked)
    np.testing.assert_array_equal(both.mean[unseen], alone.mean[unseen])
    assert (both.mean[known] != alone.mean[known]).all()


def test_where_regressions_know_their_arms_one_that_knows_nothing_is_tried() -> None:
    rng = np.random.default_rng(3)
    stacked = Stacked()
    x, wanted = world(rng, 400)
    arms = rng.integers(ARMS - 1, size=400)
    stacked.learn(of_context(x.astype(np.float32), arms, arms == wanted))
    asked = between_arms(x[:5].astype(np.float32))
    unseen = np.arange(5 * ARMS) % ARMS == ARMS - 1
    both, alone = stacked.score(asked).deviation, Fm._score(stacked, asked).deviation
    assert (both[unseen] > 2 * alone[unseen]).all()
    assert both[unseen].min() > 2 * both[~unseen].max()


def test_where_arms_are_met_too_rarely_to_be_known_none_is_tried_for_its_regression() -> None:
    rng = np.random.default_rng(3)
    stacked = Stacked()
    x, wanted = world(rng, 400)
    stacked.learn(of_context(x.astype(np.float32), 10 + np.arange(400) // 2, rng.integers(ARMS, size=400) == wanted))
    asked = between_arms(x[:5].astype(np.float32))  # of arms that nobody has seen
    both, alone = stacked.score(asked).deviation, Fm._score(stacked, asked).deviation
    assert (both < 1.1 * alone).all()


@pytest.mark.parametrize(("candidates", "part"), [(1, 1.0), (10, 1.0), (20, 0.5), (25, 0.4), (100, 0.4)])
def test_of_many_candidates_what_they_share_counts_as_of_ten(candidates: int, part: float) -> None:
    keys = np.arange(candidates, dtype=np.uint64)
    offsets = np.array([0, candidates])
    asked = Candidates(offsets, keys, keys, keys, SparseRows.empty(1), SparseRows.empty(candidates))
    stacked = Stacked()
    np.testing.assert_allclose(stacked.score(asked).deviation, part * Fm._score(stacked, asked).deviation, rtol=1e-6)


def test_features_that_have_become_rare_lose_their_coordinates() -> None:
    ridge = ArmRidge(8, 1.0, PerArmParams())
    for user in range(64):  # each once, beside a field that all have
        rows = SparseRows.from_lists([[(1000 + user, 1.0), (7, 1.0)]])
        ridge.learn(rows, np.zeros(1, np.uint64), np.ones(1), np.zeros(1))
    kept = ridge.rows(SparseRows.from_lists([[(7, 1.0)], *([(1000 + user, 1.0)] for user in range(32))]))
    assert kept[0].sum() == 1.0
    assert kept[1:].sum() == 0.0


def test_crosses_have_no_coordinates() -> None:
    ridge = ArmRidge(4, 1.0, PerArmParams())
    rows = SparseRows.from_lists([[((1 << 31) + 5, 1.0), (7, 1.0)]])
    ridge.learn(rows, np.zeros(1, np.uint64), np.ones(1), np.zeros(1))
    assert ridge.rows(rows).sum() == 1.0
