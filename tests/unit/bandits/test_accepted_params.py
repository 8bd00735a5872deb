"""What validation lets pass can be built, scores and learns: `banditmesh check` calls nothing valid that ends a
learner."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest

from banditmesh.bandits.batch import Scores
from banditmesh.bandits.errors import InvalidParams
from banditmesh.bandits.registry import EXPLORATIONS, POLICIES, build, build_exploration

from .batches import candidates, examples

EXTREMES: Final[list[Any]] = [
    *(0, 1, 2, -1, 0.5, 1e-300, 1e-9, 1e12, 1e300),
    *("1ms", "36500d", "content", None, True),
    *([], [0], [-1], [1], [1025], ["x0"]),
]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_works_with_whatever_is_accepted(name: str) -> None:
    for field in POLICIES[name].Params.model_fields:
        for value in EXTREMES:
            try:
                policy = build(name, {field: value})
            except InvalidParams:
                continue
            rng = np.random.default_rng(5)
            policy.learn(examples(rng, 8))
            policy.learn(examples(rng, 4))
            scores = policy.score(candidates(rng, [3]))
            assert np.isfinite(scores.mean).all(), (field, value)
            assert np.isfinite(scores.deviation).all(), (field, value)
            POLICIES[name].from_tensors(policy.params, policy.tensors())


@pytest.mark.parametrize("name", EXPLORATIONS)
def test_an_exploration_works_with_whatever_is_accepted(name: str) -> None:
    mean = np.array([0.0, 1e6, 1.0, 1.0, -1e6, 0.5], np.float32)
    deviation = np.array([0.0, 1e3, 1e-6, 1.0, 0.0, 0.5], np.float32)
    for field in EXPLORATIONS[name].model_fields:
        for value in EXTREMES:
            try:
                exploration = build_exploration(name, {field: value})
            except InvalidParams:
                continue
            shares = exploration.probabilities(Scores(mean, deviation), np.array([0, 5, 6]))
            assert np.isfinite(shares).all(), (field, value)
            np.testing.assert_allclose(np.add.reduceat(shares, [0, 5]), 1.0, rtol=1e-6)
