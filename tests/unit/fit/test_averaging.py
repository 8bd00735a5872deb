from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.batch import Examples, SparseRows
from banditmesh.bandits.hashed import HashedPolicy
from banditmesh.bandits.registry import build
from banditmesh.fit.averaging import Averaging

NAMES = ("linear", "fm", "nfm")


def rows(*features: int) -> Examples:
    n = 64
    keys = np.full(n, 7, np.uint64)
    entries = [[(feature, 1.0)] for feature in features] * (n // len(features))
    rewards = np.random.default_rng(len(features)).random(n)
    return Examples.checked(
        keys, keys, keys, SparseRows.from_lists(entries), rewards, np.ones(n), np.zeros(n), np.zeros(n, bool)
    )


def taught(name: str, *features: int) -> HashedPolicy:
    policy = build(name)
    assert isinstance(policy, HashedPolicy)
    policy.learn(rows(*features))
    return policy


def estimates(policy: HashedPolicy) -> list[np.ndarray]:
    return [estimate.copy() for estimate in policy.estimates()]


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_stands_in_for_the_estimates_and_gives_them_back(name: str) -> None:
    policy, averaging = taught(name, 1, 2), Averaging()
    seen = []
    for _ in range(3):
        policy.learn(rows(1, 2))
        averaging.tick(policy)
        seen.append(estimates(policy))
    with averaging.instead(policy):
        for at, estimate in enumerate(policy.estimates()):
            np.testing.assert_allclose(estimate, np.mean([each[at] for each in seen], axis=0), rtol=1e-4, atol=1e-7)
    for before, after in zip(seen[-1], policy.estimates(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert any((first != last).any() for first, last in zip(seen[0], seen[-1], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_starts_again_when_a_new_feature_moves_the_rows(name: str) -> None:
    policy, averaging = taught(name, 9), Averaging()
    averaging.tick(policy)
    policy.learn(rows(9, 4))
    kept = estimates(policy)
    with averaging.instead(policy):  # what was averaged fits no more
        for before, now in zip(kept, policy.estimates(), strict=True):
            np.testing.assert_array_equal(before, now)
    averaging.tick(policy)
    with averaging.instead(policy):
        for before, now in zip(kept, policy.estimates(), strict=True):
            np.testing.assert_array_equal(before, now)


def test_before_the_first_tick_the_estimates_stand() -> None:
    policy = taught("fm", 1)
    kept = estimates(policy)
    with Averaging().instead(policy):
        np.testing.assert_array_equal(kept[0], policy.estimates()[0])
