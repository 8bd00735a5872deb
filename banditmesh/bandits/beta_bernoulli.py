"""Beta–Bernoulli: each arm's chance of a reward, with the doubt that belongs to a chance; for Thompson sampling.

Chapelle and Li (2011, "An Empirical Evaluation of Thompson Sampling", Algorithm 2): an arm with S successes and F
failures has the posterior Beta(S + a, F + b). A reward between 0 and 1 is that much of a success and the rest of a
failure: the posterior mean is then that of Agrawal and Goyal (2012, Algorithm 2), who toss a coin for it, without the
coin. With a half-life S and F fade (Raj and Kalyani 2017, "Taming Non-stationary Bandits", Algorithm 1).

Where clicks are rare the doubt about a chance p falls with sqrt(p (1 - p) / n), which the fixed noise of `popularity`
overstates several times; explorations spend less on arms that are known to be poor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits.arms import DecayedSums, arm_keys, spans
from banditmesh.bandits.batch import Candidates, Examples, Scores, require_finite
from banditmesh.bandits.errors import InvalidBatch, NotMergeable
from banditmesh.bandits.policy import PerArmParams, PolicyParams, Tensors, tensor


class BetaBernoulliParams(PerArmParams):
    """Parameters of `beta_bernoulli`. Rewards must be from 0 to 1."""

    arm: Literal["content", "logic", "service"] = Field(default="content", description="What has a chance of its own.")
    max_arms: int = Field(
        default=100_000, ge=1, description="Arms kept; beyond this the ones shown longest ago are retired."
    )
    prior_successes: float = Field(default=1.0, gt=0, description="a of the prior Beta(a, b); with b = 1 uniform.")
    prior_failures: float = Field(default=1.0, gt=0, description="b of the prior Beta(a, b).")

    @property
    def rewards_within(self) -> tuple[float, float]:
        """See `PolicyParams.rewards_within`: a chance."""
        return 0.0, 1.0


class BetaBernoulli:
    """See the module. State of an arm: its decayed examples and their rewards, as of its own last time."""

    name: ClassVar[str] = "beta_bernoulli"
    Params: ClassVar[type[PolicyParams]] = BetaBernoulliParams
    learns: ClassVar[bool] = True
    merges: ClassVar[bool] = True
    shares: ClassVar[bool] = False

    def __init__(self, params: BetaBernoulliParams | None = None) -> None:
        self.params = params or BetaBernoulliParams()
        self.start_epoch()

    def start_epoch(self) -> None:
        """See `Policy.start_epoch`: all sums start from nothing."""
        self._arms = DecayedSums()
        self._seen = 0
        self._now_s = 0.0

    def score(self, candidates: Candidates) -> Scores:
        """See `Policy.score`: mean and deviation of each arm's Beta distribution."""
        slots = self._arms.find(arm_keys(self.params.arm, candidates))
        weight, reward = np.zeros(len(slots)), np.zeros(len(slots))
        known = slots >= 0
        weight[known], reward[known] = self._arms.at(slots[known], self._now_s, self.params.half_life)
        a = reward + self.params.prior_successes
        b = np.maximum(weight - reward, 0.0) + self.params.prior_failures  # decay rounds
        n = a + b
        mean = a / n
        return Scores(mean.astype(np.float32), np.sqrt(mean * (b / n) / (n + 1.0)).astype(np.float32))

    def learn(self, examples: Examples) -> None:
        """See `Policy.learn`. Raises `InvalidBatch` also for a reward outside [0, 1]."""
        require_finite(rewards=examples.rewards, times_s=examples.times_s)
        outside = (examples.rewards < 0.0) | (examples.rewards > 1.0)
        if outside.any():
            raise InvalidBatch(
                "must be from 0 to 1 for beta_bernoulli", field="rewards", value=float(examples.rewards[outside][0])
            )
        keys = arm_keys(self.params.arm, examples)
        for span, may_retire in spans(self._seen, len(examples)):
            times_s = examples.times_s[span]
            self._arms.add(keys[span], examples.rewards[span], times_s, self.params.half_life)
            self._now_s = max(self._now_s, float(times_s.max()))
            if may_retire:
                self._arms.retire(self.params, self._now_s)
        self._seen += len(examples)

    def tensors(self) -> Tensors:
        """See `Policy.tensors`: per arm "weight", "reward", "last_s"."""
        return {
            **self._arms.tensors(),
            "examples": np.array([self._seen], np.int64),
            "now_s": np.array([self._now_s]),
        }

    @classmethod
    def from_tensors(cls, params: BetaBernoulliParams, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """See `Policy.from_tensors`."""
        policy = cls(params)
        policy._arms.restore(tensors)
        policy._seen = int(tensor(tensors, "examples", np.int64, (1,))[0])
        policy._now_s = float(tensor(tensors, "now_s", np.float64, (1,))[0])
        return policy

    def merge(self, other: Self) -> None:
        """See `Policy.merge`: successes and failures add up."""
        if other.params != self.params:
            raise NotMergeable("the parameters differ", field="beta_bernoulli", value=other.params)
        self._arms.join(other._arms, self.params.half_life)
        self._now_s = max(self._now_s, other._now_s)
        self._seen += other._seen
        self._arms.retire(self.params, self._now_s)
