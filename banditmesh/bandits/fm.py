"""Factorization machine of second order (Rendle 2010) with a diagonal Laplace posterior.

    z(x) = b + sum_i w_i x_i + g sum_{i<j} <v_i, v_j> x_i x_j                                            (Eq. 1)
    sum_{i<j} <v_i, v_j> x_i x_j = 1/2 sum_f ((sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2)                    (Eq. 3)

with the gradient of his Eq. 4: x_i (s_f - v_if x_i), where s_f = sum_i v_if x_i. Weights, and how far the interactions
are believed (g): see `factored`. Factors are learned by AdaGrad per coordinate, a mini-batch a step.

Beside the estimate stands the diagonal of the Gauss-Newton Hessian, q = ridge + sum_j c_j (dz_j / d theta)^2 with c_j
the loss's curvature: a Laplace approximation whose deviation of z is sqrt(sum_theta (dz / d theta)^2 / q_theta) (delta
method), over the weights of a candidate's own features and all factors; `identity` scales it by the noise, `logit` by
the slope p (1 - p).

Scoring keeps what a decision's candidates share apart from what each has of its own: both sides give s, sum v^2 x^2
and three moments of 1/q, and a candidate costs a few dot products of k numbers. A feature that nobody has learned from
counts as its prior mean, 0. Bytes of a live feature: 32 + 12 factors, which is 224 for 16 factors: 0.9 GB if all 2^22
are alive, 22 MB for 100 000 arms.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Candidates, Scores, SparseRows
from banditmesh.bandits.factored import LARGEST, FactoredParams, FactoredPolicy, crowding
from banditmesh.bandits.link import respond
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.policy import PolicyParams
from banditmesh.bandits.table import Column

Floats = NDArray[np.float32]


class FmParams(FactoredParams):
    """Parameters of `fm`."""


class Side(NamedTuple):
    """What the factors of one side of a row come to; those of two sides that share no feature add up.

    Attributes:
        total: float32[n, k], s_f = sum v x.
        squares: float32[n], sum over i and f of v^2 x^2.
        first, second: float32[n, k], sums over i of x^2 / q and x^3 v / q.
        third: float32[n], sum over i and f of x^4 v^2 / q.
    """

    total: Floats
    squares: Floats
    first: Floats
    second: Floats
    third: Floats


class Fm(FactoredPolicy):
    """See the module."""

    name: ClassVar[str] = "fm"
    Params: ClassVar[type[PolicyParams]] = FmParams

    def __init__(self, params: FmParams | None = None) -> None:
        self.params = params or FmParams()
        super().__init__(self.params)

    def _columns(self) -> dict[str, Column]:
        return {**super()._columns(), "certainty": Column(self.params.factors, self.params.ridge)}

    # -- scoring

    def _score(self, candidates: Candidates) -> Scores:
        with np.errstate(over="ignore", invalid="ignore"):
            z, variance, own, shared = self._linear(candidates)
            believed = np.float32(self._believed)
            if believed:
                counts = segments.lengths(candidates.offsets)
                f, unsure = self._combine(self._side(own), self._side(shared), counts)
                z, variance = z + believed * f, variance + believed * believed * unsure
            return self._scores(z, variance)

    def _combine(self, own: Side, shared: Side, counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Mean and variance of the interactions: float32[n_candidates] each."""
        both = Side(*(mine + np.repeat(theirs, counts, axis=0) for mine, theirs in zip(own, shared, strict=True)))
        total = both.total
        f = np.float32(0.5) * (np.einsum("nf,nf->n", total, total) - both.squares)
        # sum over i and f of x^2 (s - v x)^2 / q, multiplied out.
        variance = both.third + np.einsum("nf,nf->n", total * both.first - np.float32(2) * both.second, total)
        return f, variance

    def _side(self, features: SparseRows) -> Side:
        features = self._given(features)
        (rows, x), offsets = self._found(features), features.offsets
        scaled = self._table["factors"].take(rows, axis=0)
        unsure = np.reciprocal(self._table["certainty"].take(rows, axis=0))
        if not (x == 1.0).all():
            scaled *= x[:, None]
            unsure *= (x * x)[:, None]
        total, first = segments.row_sums(scaled, offsets), segments.row_sums(unsure, offsets)
        squares = segments.sums(np.einsum("nf,nf->n", scaled, scaled), offsets)
        unsure *= scaled
        second = segments.row_sums(unsure, offsets)
        third = segments.sums(np.einsum("nf,nf->n", unsure, scaled), offsets)
        return Side(total, squares, first, second, third)

    # -- learning

    def _interactions(self, step: Step) -> NDArray[np.float64]:
        f, self._slopes = interactions(self._table["factors"][step.entries], step.offsets, step.x)
        return f.astype(np.float64)

    def _learn_factors(self, step: Step, linear: NDArray[np.float64], seen: NDArray[np.float64]) -> None:
        response = respond(self.params.link, linear + seen)
        slopes, owner, group = self._slopes, step.owner, step.group
        residual = np.clip(response.mean - step.rewards, -LARGEST, LARGEST).astype(np.float32)
        self._move(step, group.sums(residual[owner, None] * slopes), crowding(step))
        slopes *= slopes
        slopes *= response.curvature.astype(np.float32)[owner, None]
        self._table["certainty"][group.rows] += group.sums(slopes)

    def _start_pass(self) -> None:
        super()._start_pass()
        self._table.column("certainty")[:] = self.params.ridge

    def _fade(self, left: float) -> None:
        super()._fade(left)
        ridge, certainty = self.params.ridge, self._table.column("certainty")
        certainty[:] = ridge + (certainty - ridge) * np.float32(left)


def interactions(
    factors: NDArray[Any], offsets: NDArray[np.int64], values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The interactions of each row, and their derivatives (Eq. 4).

    Args:
        factors: [n_entries, k], v of each entry.
        offsets: int64[n + 1], row i owns the entries offsets[i]:offsets[i + 1].
        values: [n_entries], x.

    Returns:
        f: [n], and df / d factors: [n_entries, k].
    """
    x = values[:, None]
    scaled = factors * x
    sums = segments.row_sums(scaled, offsets)
    squares = segments.sums(np.einsum("nf,nf->n", scaled, scaled), offsets)
    slopes = np.repeat(sums, np.diff(offsets), axis=0)
    slopes -= scaled
    slopes *= x
    return (np.einsum("nf,nf->n", sums, sums) - squares) / 2, slopes
