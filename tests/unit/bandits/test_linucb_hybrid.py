"""Hybrid LinUCB against Algorithm 2 as it is printed, and against the joint normal equations."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.arms import RETIRE_EVERY
from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.linucb_hybrid import LinucbHybrid, LinucbHybridParams, vectors
from banditmesh.bandits.projection import SignedProjection

from .batches import KEYS, candidates, examples, sparse_rows

D, K = 4, 6
PARAMS = LinucbHybridParams(dimension=D, shared_dimension=K, prior_reward=0.25)


def projected(rows: SparseRows) -> tuple[np.ndarray, np.ndarray]:
    return vectors(SignedProjection(D), rows), vectors(SignedProjection(K), rows)


def algorithm_2(seen: Examples) -> tuple[np.ndarray, np.ndarray, dict[int, list[np.ndarray]]]:
    """A_0, b_0 and (A_a, B_a, b_a) by the printed lines 17 to 23."""
    a_0, b_0, arms = np.eye(K), np.zeros(K), {}
    for key, x, z, r in zip(seen.contents.tolist(), *projected(seen.features), seen.rewards - 0.25, strict=True):
        a, b, c = arms.setdefault(key, [np.eye(D), np.zeros((D, K)), np.zeros(D)])
        a_0 = a_0 + b.T @ np.linalg.inv(a) @ b
        b_0 = b_0 + b.T @ np.linalg.inv(a) @ c
        a, b, c = a + np.outer(x, x), b + np.outer(x, z), c + r * x
        a_0 = a_0 + np.outer(z, z) - b.T @ np.linalg.inv(a) @ b
        b_0 = b_0 + r * z - b.T @ np.linalg.inv(a) @ c
        arms[key] = [a, b, c]
    return a_0, b_0, arms


@pytest.mark.parametrize("counts", [[1], [3, 0, 90]])
def test_scores_are_those_of_algorithm_2(counts: list[int]) -> None:
    rng = np.random.default_rng(0)
    policy, seen, asked = LinucbHybrid(PARAMS), examples(rng, 80), candidates(rng, counts)
    policy.learn(seen)
    scores = policy.score(asked)
    a_0, b_0, arms = algorithm_2(seen)
    beta, inverse_0 = np.linalg.solve(a_0, b_0), np.linalg.inv(a_0)
    owner = np.repeat(np.arange(len(counts)), counts)
    rows = zip(asked.contents.tolist(), *projected(asked.context.take(owner).beside(asked.features)), strict=True)
    for i, (key, x, z) in enumerate(rows):
        a, b, c = arms[key]
        inverse = np.linalg.inv(a)
        theta = inverse @ (c - b @ beta)
        s = z @ inverse_0 @ z - 2 * z @ inverse_0 @ b.T @ inverse @ x + x @ inverse @ x
        s += x @ inverse @ b @ inverse_0 @ b.T @ inverse @ x
        assert scores.mean[i] == pytest.approx(0.25 + z @ beta + x @ theta, abs=1e-4)
        assert scores.deviation[i] == pytest.approx(np.sqrt(s), abs=1e-4)


def test_a_new_arm_starts_from_what_the_others_have_in_common() -> None:
    rng = np.random.default_rng(1)
    n = 600
    keys = rng.integers(0, 40, n).astype(np.uint64)
    good = rng.integers(0, 2, n)
    rows = SparseRows.from_lists([[(7 if each else 99, 1.0)] for each in good])
    policy = LinucbHybrid()
    policy.learn(Examples.checked(keys, keys, keys, rows, good, np.ones(n), np.zeros(n), good.astype(bool)))
    new = np.array([555, 556], np.uint64)
    own = SparseRows.from_lists([[(7, 1.0)], [(99, 1.0)]])
    mean = policy.score(Candidates.checked([0, 2], new, new, new, SparseRows.empty(1), own)).mean
    assert mean.tolist() == pytest.approx([1.0, 0.0], abs=0.05)


def test_what_a_retired_arm_has_taught_stays_in_the_shared_part() -> None:
    rng = np.random.default_rng(2)
    n = RETIRE_EVERY
    keys = rng.permutation(np.arange(n, dtype=np.uint64) % 50)
    stream = Examples.checked(
        keys, keys, keys, sparse_rows(rng, n), rng.random(n), np.ones(n), np.arange(n) + 0.5, np.zeros(n, bool)
    )
    few, all_ = (LinucbHybrid(PARAMS.model_copy(update={"max_arms": most})) for most in (5, 100))
    for policy in (few, all_):
        policy.learn(stream)
    assert len(few.tensors()["arms"]) == 5
    new = np.array([999], np.uint64)
    asked = Candidates.checked([0, 1], new, new, new, sparse_rows(rng, 1), sparse_rows(rng, 1))
    for one, other in zip(few.score(asked), all_.score(asked), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_arms_own_part_is_its_difference_from_the_others() -> None:
    n = 400
    keys = np.where(np.arange(n) % 4 == 0, KEYS[0], KEYS[1]).astype(np.uint64)
    rewards = (keys == KEYS[0]).astype(float)
    policy = LinucbHybrid()
    policy.learn(
        Examples.checked(keys, keys, keys, SparseRows.empty(n), rewards, np.ones(n), np.zeros(n), rewards == 1.0)
    )
    pair = KEYS[:2]
    scores = policy.score(Candidates.checked([0, 2], pair, pair, pair, SparseRows.empty(1), SparseRows.empty(2)))
    assert scores.mean.tolist() == pytest.approx([1.0, 0.0], abs=0.02)
