"""What `fm` and `nfm` share: the weights of `linear`, and interactions of factors on top, as far as they predict.

    z(x) = b + w^T x + g f(x)

The weights learn as those of `linear` do, so that neither policy is worse than it. The interactions f(x) are between
features as they were given, not between crosses, which are interactions already. They learn what b + w^T x + f(x)
leaves over. How far they are believed, g in [0, 1], is found by regression of what the weights leave over on the
interactions, both as predicted before the mini-batch was learned from (stacking: Wolpert 1992; Breiman 1996):

    g = (sum_j c_j f_j e_j - 2 sqrt(P)) / (1 + P),   P = sum_j c_j f_j^2,   e_j = (y_j - mean_j) / c_j,

cut to [0, 1], with f_j and e_j in units of the noise, over the last `_GATE_MEMORY` examples or so, c_j the loss's
curvature. That is two standard deviations below the estimate, so that chance is not believed; at first g is 0.

A mini-batch's part of the objective of the factors v is, with n_i the examples of feature i in one pass,

    sum_j loss_j + ridge / 2 sum_i |v_i|^2 (part of n_i) + decay s / 2 sum_j sum_i x_ij^2 |v_i|^2

The first penalty is the prior, spread over a feature's examples, so that a pass counts it once. The second one grows
with them: factors multiply each other, so the noise that one feature's many examples put into them spoils the estimates
of all its partners. How strong it must be follows from the size s of that noise, the root mean square of the residuals
(as for the nuclear norm, whose threshold is in units of the noise: Koltchinskii, Lounici, Tsybakov 2011).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.hashed import HashedPolicy
from banditmesh.bandits.hashed_params import HashedParams
from banditmesh.bandits.hashing import CROSSED, normals
from banditmesh.bandits.link import respond
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.policy import Tensors, tensor
from banditmesh.bandits.table import Column

FORGOTTEN_PER_PASS = 0.5
"""Of AdaGrad's sums of squares, at the start of a pass: else its steps die out before the factors have settled."""
_USUAL_WIDTH = 10
_GATE_MEMORY = 4096.0
_BELIEF = 2.0
"""Standard deviations that the estimate of g must be above 0."""
_TINY = np.float32(1e-12)
LARGEST = 1e12
"""A residual counts up to this size for the factors, ..."""
_STEEPEST = 1e15
"""... and a gradient up to this one: sums of its square stay within float32."""


class FactoredParams(HashedParams):
    """Parameters that `fm` and `nfm` share."""

    factors: int = Field(default=16, ge=1, le=256, description="Length k of a feature's factor vector.")
    learning_rate: float = Field(default=0.1, gt=0, description="AdaGrad's first step, of the factors.")
    decay: float = Field(
        default=0.07,
        ge=0,
        description="Pull towards 0 of the factors of each feature in an example, as a part of the residuals' size.",
    )
    factor_deviation: float = Field(default=0.03, gt=0, description="Standard deviation of a feature's first factors.")
    seed: int = Field(default=0, ge=0, description="Of all that starts at random.")


class FactoredPolicy(HashedPolicy):
    """See the module. A subclass predicts and learns the interactions."""

    def __init__(self, params: FactoredParams) -> None:
        self._factored = params
        super().__init__(params)
        self._gate = np.zeros(2)  # sums of c f^2 and c f e, in units of the noise

    def _columns(self) -> dict[str, Column]:
        k = self._factored.factors
        return {"factors": Column(k, 0.0), "scale": Column(k, 0.0)}  # scale: AdaGrad's sum of squared gradients

    @property
    def _believed(self) -> float:
        """g, how far the interactions are believed."""
        power, common = self._gate.tolist()
        return float(min(max((common - _BELIEF * power**0.5) / (1.0 + power), 0.0), 1.0))

    @abstractmethod
    def _interactions(self, step: Step) -> NDArray[np.float64]:
        """float64[n]: f(x) of the rows of a mini-batch, as it would be served."""

    @abstractmethod
    def _learn_factors(self, step: Step, linear: NDArray[np.float64], seen: NDArray[np.float64]) -> None:
        """Takes a mini-batch into the interactions.

        Args:
            step: without crosses.
            linear: float64[n], the rest of the predictor.
            seen: float64[n], what `_interactions` gave.
        """

    def _step(self, step: Step) -> NDArray[np.float64]:
        table, params = self._table, self._factored
        first = params.factor_deviation * normals(table.ids(step.new), params.factors, params.seed)
        table["factors"][step.new] = first
        plain = step.without_crosses()
        f = self._interactions(plain)
        linear = self._offset + self._belief(step).predictor(step)
        self._learn_gate(linear, f, step.rewards)
        residual = self._learn_weights(step, self._believed * f)
        self._learn_factors(plain, linear, f)
        return residual

    def _learn_gate(self, linear: NDArray[np.float64], f: NDArray[np.float64], rewards: NDArray[np.float64]) -> None:
        response = respond(self._params.link, linear)
        unit = self._size**2 if self._params.link == "identity" else 1.0
        push = np.array([(response.curvature * f * f).sum(), (f * (rewards - response.mean)).sum()]) / max(unit, 1e-30)
        self._gate = self._gate * (1.0 - 1.0 / _GATE_MEMORY) ** len(f) + push

    def _given(self, rows: SparseRows) -> SparseRows:
        """The features as they were given, without the crosses."""
        crossed = rows.ids >= CROSSED
        if not np.count_nonzero(crossed):
            return rows
        kept = ~crossed
        return SparseRows(segments.kept_offsets(rows.offsets, kept), rows.ids[kept], rows.values[kept])

    def _move(self, step: Step, gradient: NDArray[Any], crowd: float) -> None:
        """One step of AdaGrad (Duchi, Hazan, Singer 2011) of the factors. gradient: [n_features, k], of the loss."""
        table, params, rows = self._table, self._factored, step.group.rows
        factors = table["factors"][rows]
        held = pull(step, params.ridge, params.decay * min(self._size, LARGEST) * crowd, factors)
        gradient = np.clip(gradient + held, -_STEEPEST, _STEEPEST)
        scale = table["scale"][rows] + gradient * gradient
        table["scale"][rows] = scale
        table["factors"][rows] = factors - params.learning_rate / crowd * gradient / np.sqrt(scale + _TINY)

    def _start_pass(self) -> None:
        super()._start_pass()
        self._table.column("scale")[:] *= np.float32(FORGOTTEN_PER_PASS)

    def _fade(self, left: float) -> None:
        super()._fade(left)
        self._table.column("scale")[:] *= np.float32(left)

    def estimates(self) -> list[NDArray[Any]]:
        """See `HashedPolicy.estimates`: weights and factors."""
        return [*self._weights(), self._table.column("factors")]

    def _dense(self) -> Tensors:
        return {"gate": self._gate}

    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._gate = tensor(tensors, "gate", np.float64, (2,)).copy()


def crowding(step: Step) -> float:
    """By how much the rows of a mini-batch are wider than ten features, on average and at least 1.

    All features of a row move at once, so with many of them a step must be shorter, and of their pairs, whose number
    grows with the square, each must be held back more.
    """
    return max(1.0, float(np.abs(step.x).sum()) / (_USUAL_WIDTH * len(step.rewards)))


def pull(step: Step, ridge: float, decay: float, factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[n_features, k]: the gradient of the penalties of the factors, those of the features of `step.group`."""
    power = step.group.sums(np.square(step.x, dtype=np.float64))
    return (ridge * step.share + decay * power).astype(np.float32)[:, None] * factors
