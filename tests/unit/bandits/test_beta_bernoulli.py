"""Beta–Bernoulli against its formula; the laws that every policy obeys are in ``laws.py``."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from banditmesh.bandits.beta_bernoulli import BetaBernoulli, BetaBernoulliParams
from banditmesh.bandits.errors import InvalidBatch

from .batches import KEYS, candidates, examples

DAY_S = 86_400.0


def learned(params: BetaBernoulliParams, rewards: list[float], times_s: list[float]) -> BetaBernoulli:
    policy = BetaBernoulli(params)
    some = examples(np.random.default_rng(0), len(rewards))
    policy.learn(
        replace(
            some,
            contents=np.full(len(rewards), KEYS[0]),
            rewards=np.array(rewards, np.float32),
            times_s=np.array(times_s),
        )
    )
    return policy


def first(policy: BetaBernoulli) -> tuple[float, float]:
    asked = candidates(np.random.default_rng(0), [1])
    scores = policy.score(replace(asked, contents=KEYS[:1]))
    return float(scores.mean[0]), float(scores.deviation[0])


def beta(a: float, b: float) -> tuple[float, float]:
    return a / (a + b), math.sqrt(a * b / (a + b) ** 2 / (a + b + 1))


def test_scores_are_mean_and_deviation_of_the_posterior() -> None:
    policy = learned(BetaBernoulliParams(prior_successes=2, prior_failures=5), [1, 0, 0, 1, 0], [0.0] * 5)
    assert first(policy) == pytest.approx(beta(2 + 2, 5 + 3), rel=1e-6)


def test_a_part_of_a_reward_is_that_much_of_a_success_and_the_rest_of_a_failure() -> None:
    assert first(learned(BetaBernoulliParams(), [0.25], [0.0])) == pytest.approx(beta(1.25, 1.75), rel=1e-6)


def test_successes_and_failures_fade_to_the_prior() -> None:
    params = BetaBernoulliParams.model_validate({"half_life": "1d"})
    assert first(learned(params, [1, 0], [0.0, DAY_S])) == pytest.approx(beta(1.5, 2.0), rel=1e-6)


def test_a_reward_that_is_no_chance_is_refused_whole() -> None:
    policy = learned(BetaBernoulliParams(), [1.0], [0.0])
    before = first(policy)
    some = examples(np.random.default_rng(0), 3)
    with pytest.raises(InvalidBatch, match="from 0 to 1"):
        policy.learn(replace(some, rewards=np.array([0, 1, 1.5], np.float32)))
    assert first(policy) == before
