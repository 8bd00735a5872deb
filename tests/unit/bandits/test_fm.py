"""The factorization machine against its equations written out, finite differences and the full Laplace posterior."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from banditmesh.bandits import prior_width
from banditmesh.bandits.batch import Candidates, SparseRows
from banditmesh.bandits.fm import Fm, FmParams, interactions
from banditmesh.bandits.hashing import normals

from .batches import sparse_rows
from .laws import same_bytes
from .test_hashed import ask, of_one_arm


def equation_1(factors: np.ndarray, x: np.ndarray) -> float:
    """The interactions of one row, term by term. factors: [n_features, k]."""
    return float(sum(factors[i] @ factors[j] * x[i] * x[j] for i, j in combinations(range(len(x)), 2)))


def some_rows(rng: np.random.Generator) -> tuple[SparseRows, np.ndarray]:
    """Rows without an id that stands twice, and the factors of each entry."""
    rows = SparseRows.from_lists(
        [[(j, float(rng.normal())) for j in range(count)] for count in rng.permutation([0, 1, 2, 3, 5])]
    )
    return rows, rng.normal(size=(len(rows.ids), 3))


def test_the_prediction_is_equation_1() -> None:
    rows, factors = some_rows(np.random.default_rng(0))
    z, _ = interactions(factors, rows.offsets, rows.values)
    for row in range(len(rows)):
        entries = slice(*rows.offsets[row : row + 2])
        assert z[row] == pytest.approx(equation_1(factors[entries], rows.values[entries]))


def test_the_gradient_is_that_of_finite_differences() -> None:
    rows, factors = some_rows(np.random.default_rng(1))
    _, slopes = interactions(factors, rows.offsets, rows.values)
    for entry in range(len(rows.ids)):
        for column in range(3):
            step = np.zeros_like(factors)
            step[entry, column] = 1e-6
            above, below = (
                interactions(moved, rows.offsets, rows.values)[0] for moved in (factors + step, factors - step)
            )
            assert slopes[entry, column] == pytest.approx((above - below).sum() / 2e-6, abs=1e-6)


def some_pairs() -> tuple[SparseRows, np.ndarray]:
    rows = SparseRows.from_lists([[(1 + i % 3, 1.0), (4 + i % 5, 1.0)] for i in range(400)])
    return rows, np.array([float(i % 3 == i % 5) for i in range(400)])


def taught(link: str = "identity") -> Fm:
    rng = np.random.default_rng(2)
    rows = SparseRows.from_lists([[(1 + i % 3, 1.0), (4 + i % 5, float(rng.uniform(0.5, 2)))] for i in range(400)])
    rewards = np.array([float(i % 3 == i % 5) for i in range(400)])
    policy = Fm(FmParams.model_validate({"factors": 3, "arm": "none", "link": link, "factor_deviation": 0.3}))
    policy.learn(of_one_arm(rows, rewards))
    return policy


def test_scores_are_those_of_the_parameters_by_the_delta_method() -> None:
    policy = taught()
    for _ in range(4):
        policy.learn(of_one_arm(*some_pairs()))
    believed = policy._believed
    assert believed > 0.3
    saved = policy.tensors()
    at = {int(each): row for row, each in enumerate(saved["ids"], start=1)}
    features = [(2, 1.0), (6, 0.5), (8, -1.5), (777, 2.0)]
    rows = np.array([at.get(each, 0) for each, _ in features])
    x = SparseRows.from_lists([features])
    values = x.values * saved["unit"][rows]
    f, slopes = interactions(saved["factors"][rows], x.offsets, values)
    z = saved["weight"][rows] @ values + believed * f[0]
    keys = np.array([3], np.uint64)
    for shared in range(5):  # how many of the features come with the decision instead of the candidate
        precision = np.where(rows, saved["precision"][rows], saved["prior"][prior_width.GIVEN])
        unsure = (values**2 / precision)[shared:].sum()
        unsure += believed**2 * (slopes**2 / saved["certainty"][rows]).sum()
        context, own = SparseRows.from_lists([features[:shared]]), SparseRows.from_lists([features[shared:]])
        scores = policy.score(Candidates.checked([0, 1], keys, keys, keys, context, own))
        assert scores.mean[0] == pytest.approx(0.5 + saved["intercept"][0] + z, abs=1e-5)
        assert scores.deviation[0] == pytest.approx((saved["residual"][0] * unsure) ** 0.5, rel=1e-4)


def test_the_certainty_of_a_step_is_the_diagonal_of_the_gauss_newton_hessian() -> None:
    rng = np.random.default_rng(3)
    n = 512
    x = SparseRows.from_lists([[(j, float(s)) for j, s in enumerate(rng.choice([-1.0, 1.0], 3))] for _ in range(n)])
    policy = Fm(FmParams(factors=1, arm="none", batch=n, learning_rate=1e-9, factor_deviation=0.8, noise=1.0))
    policy._seen = 16 * n  # the size that batches have grown to
    policy.learn(of_one_arm(x, rng.random(n)))
    saved = policy.tensors()
    _, slopes = interactions(saved["factors"][1:][x.ids], x.offsets, x.values)
    jacobian = slopes.reshape(n, -1)
    full = policy.params.ridge * np.eye(3) + jacobian.T @ jacobian
    np.testing.assert_allclose(saved["certainty"][1:].ravel(), np.diag(full), rtol=1e-4)


@pytest.mark.parametrize("link", ["identity", "logit"])
def test_it_learns_what_no_sum_of_single_features_can_say(link: str) -> None:
    policy = taught(link)
    rng = np.random.default_rng(4)
    for _ in range(10):
        policy.start_epoch()
        order = rng.permutation(400)
        rows = SparseRows.from_lists([[(1 + i % 3, 1.0), (4 + i % 5, 1.0)] for i in order])
        policy.learn(of_one_arm(rows, np.array([float(i % 3 == i % 5) for i in order])))
    same, other = [[(1 + i, 1.0), (4 + i, 1.0)] for i in range(3)], [[(1, 1.0), (5, 1.0)], [(2, 1.0), (4, 1.0)]]
    assert policy.score(ask(*same)).mean.min() > policy.score(ask(*other)).mean.max() + 0.3


def test_an_interaction_with_an_unseen_feature_is_nothing() -> None:
    policy = taught()
    assert policy.score(ask([(2, 1.0), (6, 1.0), (777, 1.0)])).mean == policy.score(ask([(2, 1.0), (6, 1.0)])).mean


def test_first_factors_depend_on_the_feature_alone() -> None:
    rng = np.random.default_rng(5)
    params = FmParams(arm="none", batch=1)
    one, other = Fm(params), Fm(params)
    rows = sparse_rows(rng, 4)
    one.learn(of_one_arm(rows, np.full(4, 0.5)))
    other.learn(of_one_arm(rows.take(np.array([3, 2, 1, 0])), np.full(4, 0.5)))
    assert one.tensors()["ids"].tolist() == other.tensors()["ids"].tolist()
    drawn = normals(np.arange(20_000, dtype=np.uint32), 2, seed=0)
    assert drawn.mean() == pytest.approx(0.0, abs=0.02)
    assert drawn.std() == pytest.approx(1.0, abs=0.02)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(0.0, abs=0.02)
    assert (normals(np.array([7], np.uint32), 2, seed=0) == drawn[7]).all()
    assert (normals(np.array([7], np.uint32), 2, seed=1) != drawn[7]).all()


def test_two_replays_give_the_same_bytes() -> None:
    assert same_bytes(taught().tensors(), taught().tensors())
