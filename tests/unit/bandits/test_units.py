"""Numeric features are measured in units of their own size, by every policy on hashed features."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.batch import Scores, SparseRows
from banditmesh.bandits.hashed import HashedPolicy
from banditmesh.bandits.registry import POLICIES, build

from .test_hashed import ask, of_one_arm

HASHED = sorted(name for name, policy in POLICIES.items() if issubclass(policy, HashedPolicy))
CATEGORY, NUMBER = 1, 2


def taught(name: str, scale: float, n: int = 500) -> HashedPolicy:
    """Knows of a category and of a number that comes multiplied by `scale`."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(1.0, 0.5, n)
    rows = SparseRows.from_lists([[(CATEGORY, 1.0), (NUMBER, float(scale * number))] for number in numbers])
    policy = build(name, {"arm": "none"})
    assert isinstance(policy, HashedPolicy)
    policy.learn(of_one_arm(rows, (numbers > 1.0).astype(float)))
    return policy


def scored(name: str, scale: float) -> Scores:
    """Of what `taught` learned, at two numbers."""
    numbers = ask([(CATEGORY, 1.0), (NUMBER, 0.5 * scale)], [(CATEGORY, 1.0), (NUMBER, 2.0 * scale)])
    return taught(name, scale).score(numbers)


@pytest.mark.parametrize("name", HASHED)
@pytest.mark.parametrize("scale", [2.0**-10, 2.0**13])
def test_a_scale_that_rounds_nothing_changes_no_bit(name: str, scale: float) -> None:
    plain, scaled = scored(name, 1.0), scored(name, scale)
    assert scaled.mean.tolist() == plain.mean.tolist()
    assert scaled.deviation.tolist() == plain.deviation.tolist()
    assert plain.mean[1] > plain.mean[0] + 0.1


@pytest.mark.parametrize("name", HASHED)
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_the_scale_of_a_number_makes_no_difference(name: str, scale: float) -> None:
    plain, scaled = scored(name, 1.0), scored(name, scale)
    # Numbers are rounded otherwise. The units of an arm's regression are powers of 2; a network makes much of the last
    # bits of its first examples.
    close = {"nfm": 0.15, "stacked": 0.05}.get(name, 1e-3)
    np.testing.assert_allclose(scaled.mean, plain.mean, rtol=close)
    if name != "nfm":
        np.testing.assert_allclose(scaled.deviation, plain.deviation, rtol=close)


@pytest.mark.parametrize("name", HASHED)
def test_the_root_mean_square_of_a_feature_is_its_unit_and_that_of_a_category_exactly_1(name: str) -> None:
    saved = taught(name, 1e4).tensors()
    assert saved["ids"].tolist() == [CATEGORY, NUMBER]
    assert saved["unit"][1] == 1.0
    learned = int(saved["examples"][0])
    numbers = 1e4 * np.random.default_rng(0).normal(1.0, 0.5, 500)[:learned]
    assert saved["unit"][2] == pytest.approx(1 / np.sqrt((numbers**2).mean()), rel=1e-4)
    assert saved["seen"].tolist() == [0, learned, learned]


@pytest.mark.parametrize("name", HASHED)
def test_a_value_counts_up_to_ten_units(name: str) -> None:
    policy = taught(name, 1.0)
    ten = 10 / float(policy.tensors()["unit"][2])
    wild, most = policy.score(ask([(NUMBER, 1e30)])), policy.score(ask([(NUMBER, ten * 1.001)]))
    assert wild.mean == most.mean
    assert wild.deviation == most.deviation


@pytest.mark.parametrize("name", HASHED)
def test_a_value_of_0_is_as_good_as_none(name: str) -> None:
    rng = np.random.default_rng(1)
    rewards = rng.random(200)
    with_zeros, without = build(name), build(name)
    with_zeros.learn(of_one_arm(SparseRows.from_lists([[(CATEGORY, 1.0), (NUMBER, 0.0)]] * 200), rewards))
    without.learn(of_one_arm(SparseRows.from_lists([[(CATEGORY, 1.0)]] * 200), rewards))
    asked = ask([(CATEGORY, 1.0)], [(CATEGORY, 1.0), (NUMBER, 0.0)])
    np.testing.assert_allclose(with_zeros.score(asked).mean, without.score(asked).mean, rtol=1e-5)
    assert with_zeros.tensors()["unit"].tolist()[1:3] == [1.0, 1.0]


@pytest.mark.parametrize(("name", "stated"), [("linear", 32), ("fm", 32 + 12 * 16), ("nfm", 32 + 8 * 16)])
def test_a_live_feature_takes_the_bytes_that_its_policy_states(name: str, stated: int) -> None:
    policy = build(name, {"arm": "none", "batch": 1})
    policy.learn(of_one_arm(SparseRows.from_lists([[(row, 1.0)] for row in range(1008)]), np.full(1008, 0.5)))
    saved = policy.tensors()
    alive = len(saved["ids"])
    assert alive > 900
    columns = [array for array in saved.values() if len(array) in (alive, alive + 1)]  # some with the prior before
    assert sum(column[-alive:].nbytes for column in columns) == stated * alive
