"""The linear part of `linear`, `fm` and `nfm`: one step of Bayesian linear regression with diagonal precision.

Each weight has a normal belief N(m_i, 1 / q_i). A mini-batch is taken in by minimising

    1/2 sum_i q_i (w_i - m_i)^2 + sum_j loss(y_j, w^T x_j)                      (Chapelle and Li 2011, Eq. 6)

which gives the new m, and then q_i += sum_j x_ij^2 c_j with c_j the loss's curvature at the minimum: p (1 - p) for
`logit` (their Algorithm 3), 1 for `identity`. The minimum is approached by steps on a separable parabola that lies
above the objective everywhere (De Pierro 1995): each step divides by q_i + sum_j |x_ij| (sum_k |x_kj|) c_j, so no step
overshoots, however many features are active together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.link import Link, respond
from banditmesh.bandits.minibatch import Step

Floats = NDArray[np.float64]


class Belief(NamedTuple):
    """Of the weights of a mini-batch's features, and of the intercept.

    Attributes:
        mean, precision: float64[n_features], in the order of `Step.group`.
        intercept: float64[2], mean and precision.
    """

    mean: Floats
    precision: Floats
    intercept: Floats

    def predictor(self, step: Step) -> Floats:
        """float64[n]: intercept + w^T x of each row."""
        return np.asarray(self.intercept[0] + segments.sums(self.mean[step.group.member] * step.x, step.offsets))


def learned(step: Step, belief: Belief, base: Floats, link: Link, iterations: int) -> Belief:
    """The belief after the mini-batch, where `base` (float64[n]) is the part of the predictor that is no weight's."""
    member, owner, x = step.group.member, step.owner, step.x.astype(np.float64)
    size = 1.0 + segments.sums(np.abs(x), step.offsets)  # the intercept's x is 1
    reach = np.abs(x) * size[owner]
    mean, precision, (centre, certainty) = belief
    w, b, n = mean, centre, len(mean)
    for _ in range(iterations):
        response = respond(link, base + b + segments.sums(w[member] * x, step.offsets))
        residual = step.rewards - response.mean
        slope = np.bincount(member, residual[owner] * x, n) - precision * (w - mean)
        w = w + slope / (precision + np.bincount(member, response.bound[owner] * reach, n))
        b += (residual.sum() - certainty * (b - centre)) / (certainty + (response.bound * size).sum())
    response = respond(link, base + b + segments.sums(w[member] * x, step.offsets))
    evidence = np.bincount(member, response.curvature[owner] * x * x, n)
    return Belief(w, precision + evidence, np.array([b, certainty + response.curvature.sum()]))
