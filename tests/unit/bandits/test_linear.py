"""Bayesian linear regression against its equations and against the full posterior."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.batch import Candidates, SparseRows
from banditmesh.bandits.linear import Linear, LinearParams
from banditmesh.bandits.link import respond

from .test_hashed import ask, of_one_arm


def dense_rows(x: np.ndarray) -> SparseRows:
    """Rows whose feature j has id j + 1."""
    return SparseRows.from_lists([[(j + 1, float(v)) for j, v in enumerate(row)] for row in x])


def taught(x: np.ndarray, y: np.ndarray, **params: object) -> Linear:
    """A model that took all rows in as one batch, after 64 x n rows that say nothing."""
    n = len(y)
    policy = Linear(LinearParams.model_validate({"arm": "none", "batch": n, "iterations": 100, **params}))
    policy._seen = 64 * n  # the size that batches have grown to
    policy.learn(of_one_arm(dense_rows(x), y))
    assert len(policy.tensors()["waiting_rewards"]) == 0
    return policy


def in_units(x: np.ndarray) -> np.ndarray:
    """Columns whose root mean square is 1, so that the units in which the policy measures them change nothing."""
    return np.asarray(x / np.sqrt((x * x).mean(axis=0)))


def with_one(x: np.ndarray) -> np.ndarray:
    return np.column_stack([x, np.ones(len(x))])


def test_one_batch_is_the_ridge_solution() -> None:
    rng = np.random.default_rng(0)
    x, y = in_units(rng.normal(size=(64, 3))), rng.normal(size=64)
    policy = taught(x, y, ridge=2.0, prior_reward=0.3)
    full = with_one(x)
    solution = np.linalg.solve(2.0 * np.eye(4) + full.T @ full, full.T @ (y - 0.3))
    asked = rng.normal(size=(5, 3))
    means = policy.score(ask(*[[(j + 1, v) for j, v in enumerate(row)] for row in asked])).mean
    np.testing.assert_allclose(means, 0.3 + with_one(asked) @ solution, atol=1e-4)


def test_one_batch_of_clicks_is_where_the_gradient_of_equation_6_is_zero() -> None:
    rng = np.random.default_rng(1)
    x, y = in_units(rng.normal(size=(64, 3))), rng.integers(0, 2, 64).astype(float)
    saved = taught(x, y, link="logit", ridge=2.0).tensors()
    w = np.append(saved["weight"][1:], saved["intercept"][0])
    p = 1 / (1 + np.exp(-with_one(x) @ w))
    np.testing.assert_allclose(2.0 * w + with_one(x).T @ (p - y), 0, atol=1e-3)
    np.testing.assert_allclose(saved["precision"][1:], 2.0 + (x * x).T @ (p * (1 - p)), rtol=1e-4)


@pytest.mark.parametrize("link", ["identity", "logit"])
def test_the_deviation_is_that_of_the_full_posterior_where_features_are_orthogonal(link: str) -> None:
    # Every feature comes as often with 1 as with -1, independently of the others: X^T X is diagonal.
    signs = np.array([[(row >> bit & 1) * 2 - 1 for bit in range(3)] for row in range(8)], float)
    x, y = np.tile(signs, (8, 1)), np.repeat([0.0, 1.0], [24, 40])
    policy = taught(x, y, link=link, noise=0.7)
    w = np.append(policy.tensors()["weight"][1:], policy.tensors()["intercept"][0])
    curvature = respond(link, with_one(x) @ w).curvature  # type: ignore[arg-type]
    full = policy.params.ridge * np.eye(4) + with_one(x).T @ (curvature[:, None] * with_one(x))
    asked = np.array([0.5, -2.0, 1.0])
    z = np.append(asked, 1.0) @ w
    scale = 0.7 if link == "identity" else respond("logit", np.array([z])).curvature[0]
    apart = np.append(asked, 0.0)  # against a candidate without features: the intercept is no difference
    wanted = scale * np.sqrt(apart @ np.linalg.solve(full, apart))
    assert policy.score(ask([(1, 0.5), (2, -2.0), (3, 1.0)])).deviation[0] == pytest.approx(wanted, rel=2e-3)


def test_what_all_candidates_share_moves_their_means_and_not_their_deviations() -> None:
    rng = np.random.default_rng(5)
    policy = taught(rng.normal(size=(64, 3)), rng.normal(size=64))
    own, keys = SparseRows.from_lists([[(1, 1.0)], [(2, 1.0)]]), np.array([1, 2], np.uint64)
    scores = [
        policy.score(Candidates.checked([0, 2], keys, keys, keys, SparseRows.from_lists([context]), own))
        for context in ([], [(3, 1.0), (999, 5.0)])
    ]
    assert (scores[0].deviation == scores[1].deviation).all()
    assert scores[0].mean[0] != scores[1].mean[0]
    np.testing.assert_allclose(np.diff(scores[0].mean), np.diff(scores[1].mean), atol=1e-6)


def test_the_deviation_along_a_feature_is_at_most_that_of_the_full_posterior() -> None:
    """A diagonal cut out of the precision knows nothing of what else may explain the rewards: it is the surer one."""
    rng = np.random.default_rng(2)
    x = in_units(rng.normal(size=(64, 3)) @ rng.normal(size=(3, 3)))
    policy = taught(x, rng.normal(size=64), noise=1.0)
    covariance = np.linalg.inv(policy.params.ridge * np.eye(4) + with_one(x).T @ with_one(x))
    for feature in range(3):
        variance = 1.0 / policy.tensors()["precision"][feature + 1]
        assert 0 < variance <= covariance[feature, feature] * (1 + 1e-6)


def test_a_step_never_overshoots_however_many_features_are_active_together() -> None:
    rng = np.random.default_rng(3)
    x = np.ones((64, 40)) * rng.uniform(0.5, 2.0, 40)
    policy = taught(x, np.ones(64), iterations=1, prior_reward=0.0)
    mean = policy.score(ask([(j + 1, float(v)) for j, v in enumerate(x[0])])).mean[0]
    assert 0.5 < mean <= 1.0 + 1e-5


def test_the_mean_follows_a_drift_once_old_evidence_has_faded() -> None:
    n = 2000
    rewards = (np.arange(n) >= n // 2).astype(float)
    rows, times = SparseRows.from_lists([[(1, 1.0)]] * n), np.arange(n, dtype=float)
    fading, steady = (Linear(LinearParams(batch=16, half_life=half)) for half in ("50s", None))
    for policy in (fading, steady):
        policy.learn(of_one_arm(rows, rewards, times))
    assert fading.score(ask([(1, 1.0)])).mean[0] > 0.97
    assert steady.score(ask([(1, 1.0)])).mean[0] < 0.9


@pytest.mark.parametrize(("link", "rate"), [("identity", 0.5), ("logit", 0.5), ("logit", 0.1)])
def test_the_true_mean_lies_within_1_96_deviations_in_93_to_97_of_100_cases(link: str, rate: float) -> None:
    """Arms whose weights are drawn from the prior, shown at random; many arms, so that the intercept is well known."""
    rng = np.random.default_rng(6)
    arms, shown, ridge = 400, 30, 3.0
    within = []
    for _ in range(4):
        if link == "identity":
            truth = rate + rng.normal(0, 0.4 / np.sqrt(ridge), arms)
            draw = lambda mean: mean + rng.normal(0, 0.4, len(mean))  # noqa: E731
        else:
            truth = 1 / (1 + np.exp(-np.log(rate / (1 - rate)) - rng.normal(0, 1 / np.sqrt(ridge), arms)))
            draw = lambda mean: (rng.random(len(mean)) < mean).astype(float)  # noqa: E731
        at = rng.permutation(np.repeat(np.arange(arms), shown))
        policy = Linear(
            LinearParams.model_validate({"arm": "none", "link": link, "prior_reward": rate, "ridge": ridge})
        )
        rows = SparseRows.checked(np.arange(len(at) + 1), 1 + at, np.ones(len(at)))
        policy.learn(of_one_arm(rows, draw(truth[at])))
        scores = policy.score(ask(*[[(1 + arm, 1.0)] for arm in range(arms)]))
        within.append(np.abs(scores.mean - truth) <= 1.96 * scores.deviation)
    assert 0.93 <= np.mean(within) <= 0.97
