"""Bayesian linear regression on hashed sparse features with diagonal precision (Chapelle and Li 2011, Algorithm 3).

How a mini-batch is taken in stands in `weights`. A candidate's predictor z has mean b + m^T x, and the variance
sum_i x_i^2 / q_i over the candidate's own features. What all candidates of a decision share (the intercept, the
context) moves all of them alike: it cannot make one better than another, so its variance does not count, else a user
whom nobody knows would be shown anything. `identity` scales the deviation by the noise, `logit` by the slope p (1 - p)
(delta method). x is in units of each feature (`hashed`). Bytes of a live feature: 32, which is 134 MB if all 2^22 are
alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Scores
from banditmesh.bandits.hashed import HashedPolicy
from banditmesh.bandits.hashed_params import HashedParams
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.policy import PolicyParams, Tensors


class LinearParams(HashedParams):
    """Parameters of `linear`."""


class Linear(HashedPolicy):
    """See the module. State of a feature: mean and precision of its weight; beside them those of the intercept."""

    name: ClassVar[str] = "linear"
    Params: ClassVar[type[PolicyParams]] = LinearParams

    def __init__(self, params: LinearParams | None = None) -> None:
        self.params = params or LinearParams()
        super().__init__(self.params)

    def _score(self, candidates: Candidates) -> Scores:
        with np.errstate(over="ignore", invalid="ignore"):
            z, variance, _, _ = self._linear(candidates)
            return self._scores(z, variance)

    def _step(self, step: Step) -> NDArray[np.float64]:
        return self._learn_weights(step, np.zeros(len(step.rewards)))

    def estimates(self) -> list[NDArray[Any]]:
        """See `HashedPolicy.estimates`: the means of all weights."""
        return self._weights()

    def _dense(self) -> Tensors:
        return {}

    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        pass
