"""Bayesian linear regression on hashed sparse features with diagonal precision (Chapelle and Li 2011, Algorithm 3).

Each weight has a normal belief N(m_i, 1 / q_i). A mini-batch is taken in by minimising

    1/2 sum_i q_i (w_i - m_i)^2 + sum_j loss(y_j, w^T x_j)                                     (their Eq. 6)

which gives the new m, and then q_i += sum_j x_ij^2 c_j with c_j the loss's curvature at the minimum: p (1 - p) for
`logit` (their Algorithm 3), 1 for `identity`. The minimum is approached by `iterations` steps on a separable parabola
that lies above the objective everywhere (De Pierro 1995): each step divides by q_i + sum_j |x_ij| (sum_k |x_kj|) c_j,
so no step overshoots, however many features are active together. x is in units of each feature (`hashed`).

A candidate's predictor z has mean b + m^T x and variance sum_i x_i^2 / q_i; `identity` scales it by the noise, `logit`
by the slope p (1 - p) (delta method). Bytes of a live feature: 28, which is 117 MB if
all 2^22 are alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Candidates, Scores, SparseRows
from banditmesh.bandits.hashed import HashedParams, HashedPolicy
from banditmesh.bandits.link import respond
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.policy import PolicyParams, Tensors, tensor
from banditmesh.bandits.table import Column


class LinearParams(HashedParams):
    """Parameters of `linear`."""

    iterations: int = Field(default=3, ge=1, le=100, description="Steps towards the minimum of each mini-batch.")


class Linear(HashedPolicy):
    """See the module. State of a feature: mean and precision of its weight; beside them those of the intercept."""

    name: ClassVar[str] = "linear"
    Params: ClassVar[type[PolicyParams]] = LinearParams

    def __init__(self, params: LinearParams | None = None) -> None:
        self.params = params or LinearParams()
        super().__init__(self.params)
        self._intercept = np.array([0.0, self.params.ridge])  # mean, precision

    def _columns(self) -> dict[str, Column]:
        return {"weight": Column(0, 0.0), "precision": Column(0, self.params.ridge)}

    def _score(self, candidates: Candidates) -> Scores:
        own, own_variance = self._sums(self._own(candidates))
        shared, shared_variance = self._sums(self._shared(candidates))
        counts = np.diff(candidates.offsets)
        with np.errstate(over="ignore", invalid="ignore"):
            z = own + np.repeat(shared + np.float32(self._offset + self._intercept[0]), counts)
            variance = own_variance + np.repeat(shared_variance + np.float32(1.0 / self._intercept[1]), counts)
            return self._scores(z, variance)

    def _sums(self, features: SparseRows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and variance of each row's part of z: float32[n_rows] each."""
        rows, x = self._found(features)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = segments.sums(self._table["weight"].take(rows) * x, features.offsets)
            variance = segments.sums(x * x / self._table["precision"].take(rows), features.offsets)
        return mean, variance

    def _step(self, step: Step) -> NDArray[np.float64]:
        group, owner, offsets = step.group, step.owner, step.offsets
        member = group.member
        x = step.x.astype(np.float64)
        size = 1.0 + segments.sums(np.abs(x), offsets)  # the intercept's x is 1
        reach = np.abs(x) * size[owner]
        mean = self._table["weight"][group.rows].astype(np.float64)
        precision = self._table["precision"][group.rows].astype(np.float64)
        intercept, certainty = self._intercept
        w, b = mean.copy(), intercept
        before = np.zeros(0)
        for iteration in range(self.params.iterations):
            response = respond(self.params.link, self._offset + b + segments.sums(w[member] * x, offsets))
            residual = step.rewards - response.mean
            before = -residual if iteration == 0 else before
            slope = np.bincount(member, residual[owner] * x, len(w)) - precision * (w - mean)
            w = w + slope / (precision + np.bincount(member, response.bound[owner] * reach, len(w)))
            b += (residual.sum() - certainty * (b - intercept)) / (certainty + (response.bound * size).sum())
        response = respond(self.params.link, self._offset + b + segments.sums(w[member] * x, offsets))
        self._table["weight"][group.rows] = w
        self._table["precision"][group.rows] = precision + np.bincount(
            member, response.curvature[owner] * x * x, len(w)
        )
        self._intercept = np.array([b, certainty + response.curvature.sum()])
        return before

    def estimates(self) -> list[NDArray[Any]]:
        """See `HashedPolicy.estimates`: the means of all weights."""
        return [self._table.column("weight"), self._intercept[:1]]

    def _start_pass(self) -> None:
        self._fade(0.0)

    def _fade(self, left: float) -> None:
        ridge = self.params.ridge
        precision = self._table.column("precision")
        precision[:] = ridge + (precision - ridge) * np.float32(left)
        self._intercept[1] = ridge + (self._intercept[1] - ridge) * left

    def _dense(self) -> Tensors:
        return {"intercept": self._intercept}

    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._intercept = tensor(tensors, "intercept", np.float64, (2,)).copy()
