"""Neural factorization machine (He and Chua 2017) with a Bayesian last layer (Riquelme, Tucker, Snoek 2018).

    z(x) = b + sum_i w_i x_i + h^T phi(x)                                                       (their Eq. 1 and 7)
    phi(x) = a_L(... a_1(BN(f(x)))),  a_l(y) = dropout(max(0, y W_l + b_l))                     (Eq. 5)
    f(x) = 1/2 ((sum_i x_i v_i)^2 - sum_i (x_i v_i)^2)      the bi-interaction pooling           (Eq. 3 and 4)

Embeddings v and weights w are learned by AdaGrad per coordinate, the dense layers by Adam, a mini-batch a step; dropout
follows the pooling and each hidden layer, batch normalisation the pooling. Dropout's draws are a function of the seed
and the step, so a replay gives the same bytes.

Deviation: linear regression on what the last layer sees. On phi (and 1) the precision is a full matrix,
A = ridge I + sum c phi phi^T, on the weights w it is diagonal (most features are rare, and an arm that nobody knows
must be unsure): var z = phi^T A^-1 phi + sum_i x_i^2 / q_i. As phi moves while the network learns, A forgets with a
half-life of `memory` examples. The mean is the network's. Bytes of a live feature: 24 + 8 (factors + 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Candidates, Scores, SparseRows
from banditmesh.bandits.factors import FORGOTTEN_PER_PASS, pull
from banditmesh.bandits.gaussian import whitening
from banditmesh.bandits.hashed import HashedParams, HashedPolicy
from banditmesh.bandits.hashing import normals
from banditmesh.bandits.layers import EPSILON, Adam, Matrix, Normalised, kept, normalise, normalise_backward
from banditmesh.bandits.link import respond
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.policy import PolicyParams, Tensors, tensor
from banditmesh.bandits.table import Column

_TINY = 1e-12
_MOMENTUM = 0.99


class NfmParams(HashedParams):
    """Parameters of `nfm`."""

    factors: int = Field(default=16, ge=1, le=256, description="Length k of a feature's embedding.")
    hidden: tuple[int, ...] = Field(default=(64,), min_length=1, max_length=4, description="Widths of the layers.")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="Share of units that a step leaves out.")
    learning_rate: float = Field(default=0.1, gt=0, description="AdaGrad's first step, of weights and embeddings.")
    dense_rate: float = Field(default=0.003, gt=0, description="Adam's step, of the layers.")
    decay: float = Field(
        default=0.07,
        ge=0,
        description="Pull towards 0 of the embedding of each feature in an example, as a part of the residuals' size.",
    )
    factor_deviation: float = Field(default=0.03, gt=0, description="Standard deviation of a first embedding.")
    memory: float = Field(default=50_000.0, gt=0, description="Examples after which the last layer's evidence halves.")
    seed: int = Field(default=0, ge=0, description="Of the first embeddings and layers, and of dropout.")


class Pass(NamedTuple):
    """One forward pass through the layers, with what the way back needs: `inputs[l]` goes into layer l."""

    normalised: Normalised
    inputs: list[Matrix]
    masks: list[Matrix]
    output: Matrix


class Nfm(HashedPolicy):
    """See the module. A feature's coefficients are w and the embedding, side by side."""

    name: ClassVar[str] = "nfm"
    Params: ClassVar[type[PolicyParams]] = NfmParams
    first_batch: ClassVar[int] = 16  # batch normalisation needs a batch

    def __init__(self, params: NfmParams | None = None) -> None:
        self.params = params or NfmParams()
        super().__init__(self.params)
        k = self.params.factors
        self._weights = initial_layers(self.params)
        self._moments = {name: np.zeros((2, *weight.shape)) for name, weight in self._weights.items()}
        self._running = np.stack([np.zeros(k), np.ones(k)])  # mean and variance of the pooling
        width = self.params.hidden[-1] + 1
        self._evidence = np.zeros((width, width))
        self._whitening = np.eye(width) * self.params.ridge**-0.5
        self._adam = Adam(self.params.dense_rate)
        self._steps = 0

    def _columns(self) -> dict[str, Column]:
        width = self.params.factors + 1
        return {
            "coefficients": Column(width, 0.0),
            "scale": Column(width, 0.0),  # AdaGrad's sum of squared gradients
            "precision": Column(0, self.params.ridge),  # of w
        }

    # -- scoring

    def _score(self, candidates: Candidates) -> Scores:
        counts = np.diff(candidates.offsets)
        with np.errstate(over="ignore", invalid="ignore"):
            own, shared = self._side(self._own(candidates)), self._side(self._shared(candidates))
            linear, total, squares, spread = (
                mine + np.repeat(theirs, counts, axis=0) for mine, theirs in zip(own, shared, strict=True)
            )
            phi = with_one(self._infer((total * total - squares) / 2))
            z = self._offset + linear + phi[:, :-1] @ self._weights["out"] + self._weights["bias"][0]
            white = phi @ self._whitening.T
            variance = spread + np.einsum("nf,nf->n", white, white)
            return self._scores(z, variance)

    def _side(self, features: SparseRows) -> tuple[NDArray[Any], ...]:
        """Sums over each row: w x [n], v x [n, k], (v x)^2 [n, k], x^2 / q [n]; float32."""
        (rows, x), offsets = self._found(features), features.offsets
        scaled = self._table["coefficients"].take(rows, axis=0) * x[:, None]
        sums = segments.row_sums(scaled, offsets)
        squares = segments.row_sums(scaled[:, 1:] * scaled[:, 1:], offsets)
        spread = segments.sums(x * x / self._table["precision"].take(rows), offsets)
        return sums[:, 0], sums[:, 1:], squares, spread

    def _infer(self, pooled: NDArray[Any]) -> Matrix:
        """phi without dropout, normalised by the running statistics: float64[n, hidden[-1]]."""
        mean, variance = self._running
        y = (pooled - mean) / np.sqrt(variance + EPSILON) * self._weights["gain"] + self._weights["shift"]
        for layer in range(len(self.params.hidden)):
            y = np.maximum(y @ self._weights[f"layer{layer}"] + self._weights[f"bias{layer}"], 0.0)
        return np.asarray(y)

    # -- learning

    def _step(self, step: Step) -> NDArray[np.float64]:
        table, params, group, n = self._table, self.params, step.group, len(step.rewards)
        first = params.factor_deviation * normals(table.ids(step.new), params.factors, params.seed)
        table["coefficients"][step.new, 1:] = first
        coefficients = table["coefficients"][group.rows]
        x = step.x[:, None].astype(np.float64)
        scaled = coefficients[group.member] * x
        sums = segments.row_sums(scaled, step.offsets)
        pooled = pool(scaled[:, 1:], sums[:, 1:], step.offsets)
        rng = np.random.default_rng([params.seed, self._seen])
        masks = [kept(rng, (n, width), params.dropout) for width in (params.factors, *params.hidden)]
        trace = forward(self._weights, pooled, masks)
        response = respond(params.link, self._offset + sums[:, 0] + trace.output)
        residual = response.mean - step.rewards
        gradients, pooled_gradient = backward(self._weights, trace, residual)
        slopes = np.empty_like(scaled)
        slopes[:, 0] = residual[step.owner]
        slopes[:, 1:] = pooled_gradient[step.owner] * (sums[step.owner, 1:] - scaled[:, 1:])
        gradient = group.sums(slopes * x)
        gradient += pull(step, params.ridge, params.decay * self._size, coefficients)
        scale = table["scale"][group.rows] + gradient * gradient
        table["scale"][group.rows] = scale
        table["coefficients"][group.rows] = coefficients - params.learning_rate * gradient / np.sqrt(scale + _TINY)
        table["precision"][group.rows] += group.sums(response.curvature[step.owner] * np.square(x[:, 0]))
        self._step_dense(gradients, n)
        # Of a short history the plain mean, of a long one an exponential.
        share = max(1.0 - _MOMENTUM, n / (self._seen + n))
        self._running += share * (np.stack([trace.normalised.mean, trace.normalised.variance]) - self._running)
        self._add_evidence(self._infer(pooled), response.curvature)
        return np.asarray(residual)

    def _step_dense(self, gradients: Mapping[str, Matrix], n: int) -> None:
        self._steps += 1
        for name, gradient in gradients.items():
            self._adam.step(self._weights[name], gradient / n, self._moments[name], self._steps)

    def _add_evidence(self, phi: Matrix, curvature: NDArray[Any]) -> None:
        phi = with_one(phi)
        left = 0.5 ** (len(phi) / self.params.memory)
        self._evidence = self._evidence * left + phi.T @ (phi * curvature[:, None])
        self._whiten()

    def _whiten(self) -> None:
        ridge = self.params.ridge * np.eye(len(self._evidence))
        self._whitening = whitening((ridge + self._evidence)[None])[0]

    def estimates(self) -> list[NDArray[Any]]:
        """See `HashedPolicy.estimates`: coefficients, layers, and the statistics that normalise the pooling."""
        return [self._table.column("coefficients"), *self._weights.values(), self._running]

    def _start_pass(self) -> None:
        self._table.column("precision")[:] = self.params.ridge
        self._table.column("scale")[:] *= np.float32(FORGOTTEN_PER_PASS)
        self._evidence = np.zeros_like(self._evidence)
        self._whiten()

    def _fade(self, left: float) -> None:
        ridge, share = self.params.ridge, np.float32(left)
        precision, scale = self._table.column("precision"), self._table.column("scale")
        precision[:] = ridge + (precision - ridge) * share
        scale *= share
        self._evidence = self._evidence * left
        self._whiten()

    # -- saving

    def _dense(self) -> Tensors:
        layers = {f"net_{name}": weight for name, weight in self._weights.items()}
        moments = {f"adam_{name}": moment for name, moment in self._moments.items()}
        steps = {"steps": np.array([self._steps], np.int64)}
        return {**layers, **moments, **steps, "running": self._running, "evidence": self._evidence}

    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        def restored(name: str, like: Matrix) -> Matrix:
            return tensor(tensors, name, np.float64, like.shape).copy()

        self._weights = {name: restored(f"net_{name}", weight) for name, weight in self._weights.items()}
        self._moments = {name: restored(f"adam_{name}", moment) for name, moment in self._moments.items()}
        self._running, self._evidence = restored("running", self._running), restored("evidence", self._evidence)
        self._steps = int(tensor(tensors, "steps", np.int64, (1,))[0])
        self._whiten()


def initial_layers(params: NfmParams) -> dict[str, Matrix]:
    """Random layers by the scheme of He et al. (2015), zero biases; by the seed alone."""
    rng = np.random.default_rng([params.seed, 1])
    k = params.factors
    weights = {"gain": np.ones(k), "shift": np.zeros(k)}
    for layer, (fan_in, width) in enumerate(zip((k, *params.hidden), params.hidden, strict=False)):
        weights[f"layer{layer}"] = rng.normal(0.0, np.sqrt(2.0 / fan_in), (fan_in, width))
        weights[f"bias{layer}"] = np.zeros(width)
    # From 0: an untrained network says what the prior says.
    return {**weights, "out": np.zeros(params.hidden[-1]), "bias": np.zeros(1)}


def pool(scaled: Matrix, sums: Matrix, offsets: NDArray[np.int64]) -> Matrix:
    """Bi-interaction pooling: [n, k]. scaled: [n_entries, k], v x; sums: [n, k], their sums over each row."""
    return np.asarray(sums * sums - segments.row_sums(scaled * scaled, offsets)) / 2


def forward(weights: Mapping[str, Matrix], pooled: Matrix, masks: list[Matrix]) -> Pass:
    """Through normalisation, layers and dropout: pooled [n, k], masks[0] [n, k], masks[l + 1] [n, hidden[l]]."""
    normalised = normalise(pooled)
    y = (normalised.values * weights["gain"] + weights["shift"]) * masks[0]
    inputs = [y]
    for layer, mask in enumerate(masks[1:]):
        y = np.maximum(y @ weights[f"layer{layer}"] + weights[f"bias{layer}"], 0.0) * mask
        inputs.append(y)
    return Pass(normalised, inputs, masks, y @ weights["out"] + weights["bias"][0])


def backward(
    weights: Mapping[str, Matrix], trace: Pass, residual: NDArray[np.float64]
) -> tuple[dict[str, Matrix], Matrix]:
    """The gradients of each weight, summed over the batch, and of `pooled`; residual: [n], d loss / d output."""
    gradients = {"out": residual @ trace.inputs[-1], "bias": residual.sum(keepdims=True)}
    back = residual[:, None] * weights["out"]
    for layer in reversed(range(len(trace.inputs) - 1)):
        # The output is 0 where the unit was off, or dropped.
        back = back * trace.masks[layer + 1] * (trace.inputs[layer + 1] > 0)
        gradients[f"layer{layer}"] = trace.inputs[layer].T @ back
        gradients[f"bias{layer}"] = back.sum(axis=0)
        back = back @ weights[f"layer{layer}"].T
    back = back * trace.masks[0]
    gradients["gain"] = (back * trace.normalised.values).sum(axis=0)
    gradients["shift"] = back.sum(axis=0)
    return gradients, normalise_backward(back * weights["gain"], trace.normalised)


def with_one(phi: Matrix) -> Matrix:
    """[n, d] -> [n, d + 1]: a column of ones at the end, for the intercept."""
    return np.column_stack([phi, np.ones(len(phi))])
