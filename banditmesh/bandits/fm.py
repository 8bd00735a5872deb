"""Factorization machine of second order (Rendle 2010) with a diagonal Laplace posterior.

    z(x) = b + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j                                              (Eq. 1)
         = b + sum_i w_i x_i + 1/2 sum_f ((sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2)                       (Eq. 3)

with the gradients of his Eq. 4: 1, x_i and x_i (s_f - v_if x_i), where s_f = sum_i v_if x_i. Learned by AdaGrad per
coordinate (Duchi, Hazan, Singer 2011), a mini-batch a step.

Beside the estimate stands the diagonal of the Gauss-Newton Hessian, q = ridge + sum_j c_j (dz_j / d theta)^2 with c_j
the loss's curvature: a Laplace approximation whose deviation of z is sqrt(sum_theta (dz / d theta)^2 / q_theta) (delta
method); `identity` scales it by the noise, `logit` by the slope p (1 - p).

Scoring keeps what a decision's candidates share apart from what each has of its own: both sides give s, sum v^2 x^2
and three moments of 1/q, and a candidate costs a few dot products of k numbers. A feature that nobody has learned from
counts as its prior mean, 0. Bytes of a live feature: 20 + 12 (factors + 1), which is 224 for 16 factors: 0.9 GB if all
2^22 are alive, 22 MB for 100 000 arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Candidates, Scores, SparseRows
from banditmesh.bandits.factors import FORGOTTEN_PER_PASS, crowding, pull
from banditmesh.bandits.hashed import HashedParams, HashedPolicy
from banditmesh.bandits.hashing import normals
from banditmesh.bandits.link import respond
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.policy import PolicyParams, Tensors, tensor
from banditmesh.bandits.table import Column

Floats = NDArray[np.float32]


class FmParams(HashedParams):
    """Parameters of `fm`."""

    factors: int = Field(default=16, ge=1, le=256, description="Length k of a feature's factor vector.")
    learning_rate: float = Field(default=0.1, gt=0, description="AdaGrad's first step, of weights and factors.")
    decay: float = Field(
        default=0.07,
        ge=0,
        description="Pull towards 0 of the factors of each feature in an example, as a part of the residuals' size.",
    )
    factor_deviation: float = Field(default=0.03, gt=0, description="Standard deviation of a feature's first factors.")
    seed: int = Field(default=0, ge=0, description="Of the first factors.")


class Side(NamedTuple):
    """What the features of one side of a row come to; those of two sides that share no feature add up.

    Attributes:
        linear: float32[n], sum w x.
        total: float32[n, k], s_f = sum v x.
        squares: float32[n], sum over i and f of v^2 x^2.
        spread: float32[n], variance of the linear part, sum x^2 / q.
        first, second: float32[n, k], sums over i of x^2 / q and x^3 v / q.
        third: float32[n], sum over i and f of x^4 v^2 / q.
    """

    linear: Floats
    total: Floats
    squares: Floats
    spread: Floats
    first: Floats
    second: Floats
    third: Floats


class Fm(HashedPolicy):
    """See the module. A feature's coefficients are w and the k factors, side by side: so are precision and scale."""

    name: ClassVar[str] = "fm"
    Params: ClassVar[type[PolicyParams]] = FmParams

    def __init__(self, params: FmParams | None = None) -> None:
        self.params = params or FmParams()
        super().__init__(self.params)
        self._intercept = np.array([0.0, self.params.ridge, 0.0])  # mean, precision, scale

    def _columns(self) -> dict[str, Column]:
        width = self.params.factors + 1
        return {
            "coefficients": Column(width, 0.0),
            "precision": Column(width, self.params.ridge),
            "scale": Column(width, 0.0),  # AdaGrad's sum of squared gradients
        }

    # -- scoring

    def _score(self, candidates: Candidates) -> Scores:
        counts = np.diff(candidates.offsets)
        with np.errstate(over="ignore", invalid="ignore"):
            own, shared = self._side(self._own(candidates)), self._side(self._shared(candidates))
            z, variance = self._combine(own, shared, counts)
            return self._scores(z, variance)

    def _combine(self, own: Side, shared: Side, counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Mean and variance of z: float32[n_candidates] each."""
        both = Side(*(mine + np.repeat(theirs, counts, axis=0) for mine, theirs in zip(own, shared, strict=True)))
        total = both.total
        z = both.linear + np.float32(self._offset + self._intercept[0])
        z += np.float32(0.5) * (np.einsum("nf,nf->n", total, total) - both.squares)
        # sum over i and f of x^2 (s - v x)^2 / q, multiplied out.
        variance = both.spread + both.third + np.float32(1 / self._intercept[1])
        variance += np.einsum("nf,nf->n", total * both.first - np.float32(2) * both.second, total)
        return z, variance

    def _side(self, features: SparseRows) -> Side:
        (rows, x), offsets = self._found(features), features.offsets
        scaled = self._table["coefficients"].take(rows, axis=0)
        unsure = np.reciprocal(self._table["precision"].take(rows, axis=0))
        if not (x == 1.0).all():
            scaled *= x[:, None]
            unsure *= (x * x)[:, None]
        sums, spread = segments.row_sums(scaled, offsets), segments.row_sums(unsure, offsets)
        squares = segments.sums(np.einsum("nf,nf->n", scaled[:, 1:], scaled[:, 1:]), offsets)
        unsure *= scaled
        second = segments.row_sums(unsure[:, 1:], offsets)
        third = segments.sums(np.einsum("nf,nf->n", unsure[:, 1:], scaled[:, 1:]), offsets)
        return Side(sums[:, 0], sums[:, 1:], squares, spread[:, 0], spread[:, 1:], second, third)

    # -- learning

    def _step(self, step: Step) -> NDArray[np.float64]:
        table, params, group = self._table, self.params, step.group
        crowd = crowding(step)
        first = params.factor_deviation * normals(table.ids(step.new), params.factors, params.seed)
        table["coefficients"][step.new, 1:] = first
        z, slopes = predict(table["coefficients"][step.entries], step.offsets, step.x)
        response = respond(params.link, z + np.float32(self._offset + self._intercept[0]))
        residual = response.mean - step.rewards
        coefficients = table["coefficients"][group.rows]
        gradient = group.sums(residual.astype(np.float32)[step.owner, None] * slopes)
        gradient += pull(step, params.ridge, params.decay * self._size * crowd, coefficients)
        scale = table["scale"][group.rows] + gradient * gradient
        table["scale"][group.rows] = scale
        table["precision"][group.rows] += group.sums(
            response.curvature.astype(np.float32)[step.owner, None] * slopes * slopes
        )
        rate = params.learning_rate / crowd
        table["coefficients"][group.rows] = coefficients - rate * gradient / np.sqrt(scale + _TINY)
        self._step_intercept(float(residual.sum()), float(response.curvature.sum()))
        return np.asarray(residual)

    def _step_intercept(self, gradient: float, evidence: float) -> None:
        mean, precision, scale = self._intercept
        scale += gradient * gradient
        mean -= self.params.learning_rate * gradient / np.sqrt(scale + _TINY)
        self._intercept = np.array([mean, precision + evidence, scale])

    def estimates(self) -> list[NDArray[Any]]:
        """See `HashedPolicy.estimates`: all coefficients."""
        return [self._table.column("coefficients"), self._intercept[:1]]

    def _start_pass(self) -> None:
        ridge = self.params.ridge
        self._table.column("precision")[:] = ridge
        self._table.column("scale")[:] *= np.float32(FORGOTTEN_PER_PASS)
        self._intercept[1:] = ridge, self._intercept[2] * FORGOTTEN_PER_PASS

    def _fade(self, left: float) -> None:
        ridge, share = self.params.ridge, np.float32(left)
        precision, scale = self._table.column("precision"), self._table.column("scale")
        precision[:] = ridge + (precision - ridge) * share
        scale *= share
        self._intercept[1:] = ridge + (self._intercept[1] - ridge) * left, self._intercept[2] * left

    def _dense(self) -> Tensors:
        return {"intercept": self._intercept}

    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._intercept = tensor(tensors, "intercept", np.float64, (3,)).copy()


_TINY = np.float32(1e-12)


def predict(
    coefficients: NDArray[Any], offsets: NDArray[np.int64], values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """z without intercept, and its derivatives (Eq. 4).

    Args:
        coefficients: [n_entries, 1 + k], w and v of each entry.
        offsets: int64[n + 1], row i owns the entries offsets[i]:offsets[i + 1].
        values: [n_entries], x.

    Returns:
        z: [n], and dz / d coefficients: [n_entries, 1 + k].
    """
    x = values[:, None]
    scaled = coefficients * x
    sums = segments.row_sums(scaled, offsets)
    squares = segments.sums(np.einsum("nf,nf->n", scaled[:, 1:], scaled[:, 1:]), offsets)
    z = sums[:, 0] + (np.einsum("nf,nf->n", sums[:, 1:], sums[:, 1:]) - squares) / 2
    slopes = np.repeat(sums, np.diff(offsets), axis=0)
    slopes -= scaled
    slopes[:, 0] = 1.0
    slopes *= x
    return z, slopes
