"""More passes over the same examples: each is believed once, however many there are."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits import prior_width
from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.hashed import HashedPolicy
from banditmesh.bandits.registry import build
from banditmesh.bandits.stacked import Stacked

from .test_hashed import ask, of_one_arm

FEATURES = 400
PASSES = 12


def apart(policy: HashedPolicy) -> float:
    """How far the means of features that earned 1, and of those that earned 0, are apart."""
    means = policy.score(ask(*[[(1 + each, 1.0)] for each in range(FEATURES)])).mean
    return float(means[1::2].mean() - means[::2].mean())


def taught(name: str, link: str, passes: int) -> HashedPolicy:
    """Knows each feature from two examples, which both earned 1 or both 0."""
    policy = build(name, {"arm": "none", "link": link, "prior_reward": 0.5})
    assert isinstance(policy, HashedPolicy)
    rng = np.random.default_rng(0)
    features = np.repeat(np.arange(FEATURES), 2)
    for each in range(passes):
        if each:
            policy.start_epoch()
        order = features[rng.permutation(len(features))]
        rows = SparseRows.from_lists([[(1 + feature, 1.0)] for feature in order.tolist()])
        policy.learn(of_one_arm(rows, (order % 2).astype(float)))
    return policy


@pytest.mark.parametrize("link", ["identity", "logit"])
@pytest.mark.parametrize("name", ["linear", "fm", "nfm", "stacked"])
def test_what_few_examples_say_is_believed_no_more_after_many_passes(name: str, link: str) -> None:
    first, last = taught(name, link, 1), taught(name, link, PASSES)
    once, often = apart(first), apart(last)
    assert once > 0.1
    assert 0.9 * once < often < 1.25 * once
    evidence, at_last = (policy.tensors()["precision"].mean() for policy in (first, last))
    assert at_last == pytest.approx(evidence, rel=0.1)


def test_two_examples_against_a_prior_of_p_are_worth_two_in_two_and_p() -> None:
    policy = taught("linear", "identity", PASSES)
    width = float(policy.tensors()["prior"][prior_width.GIVEN])
    assert width < 2.5  # that of the first pass, in which features differ by more than the noise
    assert apart(policy) == pytest.approx(2 / (2 + width), abs=0.05)


def test_later_passes_leave_what_only_a_first_one_can_show() -> None:
    policy = taught("stacked", "identity", 1)
    assert isinstance(policy, Stacked)
    before = policy.tensors()
    policy.start_epoch()
    policy.learn(of_one_arm(SparseRows.from_lists([[(1, 1.0)]] * 64), np.ones(64)))
    after = policy.tensors()
    for name in ("stack", "prior", "resolved", *(each for each in before if each.startswith("arm_"))):
        np.testing.assert_array_equal(after[name], before[name])
    assert (after["weight"] != before["weight"]).any()
