"""Neural factorization machine (He and Chua 2017) with a Bayesian last layer (Riquelme, Tucker, Snoek 2018).

    z(x) = b + sum_i w_i x_i + g h^T phi(x)                                                     (their Eq. 1 and 7)
    phi(x) = a_L(... a_1(BN(f(x)))),  a_l(y) = dropout(max(0, y W_l + b_l))                     (Eq. 5)
    f(x) = 1/2 ((sum_i x_i v_i)^2 - sum_i (x_i v_i)^2)      the bi-interaction pooling           (Eq. 3 and 4)

Weights, and how far the network is believed (g): see `factored`. Embeddings v are learned by AdaGrad per coordinate,
the dense layers by Adam, a mini-batch a step; dropout follows the pooling and each hidden layer, batch normalisation
the pooling, of a few rows by the running statistics. Dropout's draws are a function of the seed and the step, and
matrix products are cut so small that no BLAS divides them among threads: so a replay gives the same bytes, on however
many.

Deviation: linear regression on what the last layer sees. On phi (and 1) the precision is a full matrix,
A = ridge I + sum c phi phi^T, on the weights w of a candidate's own features it is diagonal (most features are rare,
and an arm that nobody knows must be unsure): var z = g^2 phi^T A^-1 phi + sum_i x_i^2 / q_i. As phi moves while the
network learns, A forgets with a half-life of `memory` examples. The mean is the network's. Bytes of a live feature:
32 + 8 factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Candidates, Scores, SparseRows
from banditmesh.bandits.factored import FactoredParams, FactoredPolicy
from banditmesh.bandits.gaussian import whitening
from banditmesh.bandits.layers import (
    EPSILON,
    Adam,
    Matrix,
    Normalised,
    gram,
    kept,
    moved,
    normalise,
    normalise_backward,
    product,
)
from banditmesh.bandits.link import respond
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.policy import PolicyParams, Tensors, tensor

_MOMENTUM = 0.99
_ENOUGH = 32
"""Rows whose own mean and deviation normalise them; fewer, as mini-batches on line are, have the running ones."""


class NfmParams(FactoredParams):
    """Parameters of `nfm`."""

    hidden: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        default=(64,), min_length=1, max_length=4, description="Widths of the layers, 1 to 1024 each."
    )
    dropout: float = Field(default=0.3, ge=0, lt=1, description="Share of units that a step leaves out.")
    dense_rate: float = Field(default=0.003, gt=0, description="Adam's step, of the layers.")
    memory: float = Field(default=50_000.0, gt=0, description="Examples after which the last layer's evidence halves.")


class Pass(NamedTuple):
    """One forward pass through the layers, with what the way back needs: `inputs[l]` goes into layer l."""

    normalised: Normalised
    inputs: list[Matrix]
    masks: list[Matrix]
    output: Matrix


class Nfm(FactoredPolicy):
    """See the module. The factors are the embeddings."""

    name: ClassVar[str] = "nfm"
    Params: ClassVar[type[PolicyParams]] = NfmParams

    def __init__(self, params: NfmParams | None = None) -> None:
        self.params = params or NfmParams()
        super().__init__(self.params)
        k = self.params.factors
        self._layers = initial_layers(self.params)
        self._moments = {name: np.zeros((2, *weight.shape)) for name, weight in self._layers.items()}
        self._running = np.stack([np.zeros(k), np.ones(k)])  # mean and variance of the pooling
        width = self.params.hidden[-1] + 1
        self._evidence = np.zeros((width, width))
        self._whitening = np.eye(width) * self.params.ridge**-0.5
        self._adam = Adam(self.params.dense_rate)
        self._steps = 0

    # -- scoring

    def _score(self, candidates: Candidates) -> Scores:
        with np.errstate(over="ignore", invalid="ignore"):
            z, variance, own, shared = self._linear(candidates)
            believed = self._believed
            if not believed:
                return self._scores(z, variance)
            counts = segments.lengths(candidates.offsets)
            total, squares = (
                mine + np.repeat(theirs, counts, axis=0)
                for mine, theirs in zip(self._side(own), self._side(shared), strict=True)
            )
            phi = self._infer((total * total - squares) / 2)
            white = product(with_one(phi), self._whitening.T)
            unsure = np.einsum("nf,nf->n", white, white)
            return self._scores(z + believed * self._output(phi), variance + believed**2 * unsure)

    def _side(self, features: SparseRows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Sums over each row of v x and (v x)^2: float32[n, k] each."""
        features = self._given(features)
        rows, x = self._found(features)
        scaled = self._table["factors"].take(rows, axis=0) * x[:, None]
        return segments.row_sums(scaled, features.offsets), segments.row_sums(scaled * scaled, features.offsets)

    def _output(self, phi: Matrix) -> NDArray[np.float64]:
        return np.asarray(np.einsum("nf,f->n", phi, self._layers["out"]) + self._layers["bias"][0])

    def _infer(self, pooled: NDArray[Any]) -> Matrix:
        """phi without dropout, normalised by the running statistics: float64[n, hidden[-1]]."""
        mean, variance = self._running
        y = (pooled - mean) / np.sqrt(variance + EPSILON) * self._layers["gain"] + self._layers["shift"]
        for layer in range(len(self.params.hidden)):
            y = np.maximum(product(y, self._layers[f"layer{layer}"]) + self._layers[f"bias{layer}"], 0.0)
        return np.asarray(y)

    # -- learning

    def _interactions(self, step: Step) -> NDArray[np.float64]:
        self._scaled = self._table["factors"][step.entries] * step.x[:, None].astype(np.float64)
        self._sums = segments.row_sums(self._scaled, step.offsets)
        self._pooled = pool(self._scaled, self._sums, step.offsets)
        self._phi = self._infer(self._pooled)
        return self._output(self._phi)

    def _learn_factors(self, step: Step, linear: NDArray[np.float64], seen: NDArray[np.float64]) -> None:
        params, n = self.params, len(step.rewards)
        rng = np.random.default_rng([params.seed, self._seen])
        masks = [kept(rng, (n, width), params.dropout) for width in (params.factors, *params.hidden)]
        # Of a short history the plain mean, of a long one an exponential.
        self._running[:] = moved(self._running, self._pooled, max(1.0 - _MOMENTUM, n / (self._seen + n)))
        trace = forward(self._layers, self._pooled, masks, self._running)
        response = respond(params.link, linear + trace.output)
        gradients, pooled_gradient = backward(self._layers, trace, response.mean - step.rewards)
        slopes = pooled_gradient[step.owner] * (self._sums[step.owner] - self._scaled) * step.x[:, None]
        self._move(step, step.group.sums(slopes), 1.0)
        self._step_dense(gradients, n)
        self._add_evidence(self._phi, response.curvature)

    def _step_dense(self, gradients: Mapping[str, Matrix], n: int) -> None:
        self._steps += 1
        for name, gradient in gradients.items():
            self._adam.step(self._layers[name], gradient / n, self._moments[name], self._steps)

    def _add_evidence(self, phi: Matrix, curvature: NDArray[Any]) -> None:
        phi = with_one(phi)
        left = 0.5 ** (len(phi) / self.params.memory)
        self._evidence = self._evidence * left + gram(phi, phi * curvature[:, None])
        self._whiten()

    def _whiten(self) -> None:
        ridge = self.params.ridge * np.eye(len(self._evidence))
        self._whitening = whitening((ridge + self._evidence)[None])[0]

    def estimates(self) -> list[NDArray[Any]]:
        """See `HashedPolicy.estimates`: also the layers, and the statistics that normalise the pooling."""
        return [*super().estimates(), *self._layers.values(), self._running]

    def _start_pass(self) -> None:
        super()._start_pass()
        self._evidence = np.zeros_like(self._evidence)
        self._whiten()

    def _fade(self, left: float) -> None:
        super()._fade(left)
        self._evidence = self._evidence * left
        self._whiten()

    # -- saving

    def _dense(self) -> Tensors:
        layers = {f"net_{name}": weight for name, weight in self._layers.items()}
        moments = {f"adam_{name}": moment for name, moment in self._moments.items()}
        steps = {"steps": np.array([self._steps], np.int64)}
        return {**super()._dense(), **layers, **moments, **steps, "running": self._running, "evidence": self._evidence}

    def _restore_dense(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        super()._restore_dense(tensors)

        def restored(name: str, like: Matrix) -> Matrix:
            return tensor(tensors, name, np.float64, like.shape).copy()

        self._layers = {name: restored(f"net_{name}", weight) for name, weight in self._layers.items()}
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


def pool(scaled: NDArray[np.floating[Any]], sums: NDArray[np.floating[Any]], offsets: NDArray[np.int64]) -> Matrix:
    """Bi-interaction pooling: [n, k]. scaled: [n_entries, k], v x; sums: [n, k], their sums over each row."""
    return np.asarray(sums * sums - segments.row_sums(scaled * scaled, offsets)) / 2


def forward(weights: Mapping[str, Matrix], pooled: Matrix, masks: list[Matrix], running: Matrix) -> Pass:
    """Through normalisation, layers and dropout: pooled [n, k], masks[0] [n, k], masks[l + 1] [n, hidden[l]]; running:
    [2, k], mean and variance of the pooling so far."""
    normalised = normalise(pooled, running, _ENOUGH)
    y = (normalised.values * weights["gain"] + weights["shift"]) * masks[0]
    inputs = [y]
    for layer, mask in enumerate(masks[1:]):
        y = np.maximum(product(y, weights[f"layer{layer}"]) + weights[f"bias{layer}"], 0.0) * mask
        inputs.append(y)
    return Pass(normalised, inputs, masks, np.einsum("nf,f->n", y, weights["out"]) + weights["bias"][0])


def backward(
    weights: Mapping[str, Matrix], trace: Pass, residual: NDArray[np.float64]
) -> tuple[dict[str, Matrix], Matrix]:
    """The gradients of each weight, summed over the batch, and of `pooled`; residual: [n], d loss / d output."""
    gradients = {"out": np.einsum("n,nf->f", residual, trace.inputs[-1]), "bias": residual.sum(keepdims=True)}
    back = residual[:, None] * weights["out"]
    for layer in reversed(range(len(trace.inputs) - 1)):
        # The output is 0 where the unit was off, or dropped.
        back = back * trace.masks[layer + 1] * (trace.inputs[layer + 1] > 0)
        gradients[f"layer{layer}"] = gram(trace.inputs[layer], back)
        gradients[f"bias{layer}"] = back.sum(axis=0)
        back = product(back, weights[f"layer{layer}"].T)
    back = back * trace.masks[0]
    gradients["gain"] = (back * trace.normalised.values).sum(axis=0)
    gradients["shift"] = back.sum(axis=0)
    return gradients, normalise_backward(back * weights["gain"], trace.normalised)


def with_one(phi: Matrix) -> Matrix:
    """[n, d] -> [n, d + 1]: a column of ones at the end, for the intercept."""
    return np.column_stack([phi, np.ones(len(phi))])
