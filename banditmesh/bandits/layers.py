"""The layers of a small neural network on float64[n, d], each with its exact gradient.

`forward` gives what `backward` needs; nothing is kept in between, so a layer is its parameters alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
EPSILON = 1e-5


_ONE_THREAD = 1 << 17
"""Multiplications of a matrix product; from 2^18 on OpenBLAS divides one among threads, which changes its bits."""


def product(left: Matrix, right: Matrix) -> Matrix:
    """left @ right, float64[n, d] and float64[d, k], by so few rows at a time that it takes one thread."""
    rows = max(_ONE_THREAD // right.size, 1)
    if len(left) <= rows:
        return np.asarray(left @ right)
    return np.concatenate([left[start : start + rows] @ right for start in range(0, len(left), rows)])


def gram(left: Matrix, right: Matrix) -> Matrix:
    """left^T @ right, float64[n, d] and float64[n, k], by so few rows at a time that it takes one thread."""
    rows = max(_ONE_THREAD // (left.shape[1] * right.shape[1]), 1)
    out = np.zeros((left.shape[1], right.shape[1]))
    for start in range(0, len(left), rows):
        out += left[start : start + rows].T @ right[start : start + rows]
    return out


class Normalised(NamedTuple):
    """A batch with mean 0 and variance 1 in each column, before gain and shift, and what it was divided by."""

    values: Matrix
    inverse_deviation: Matrix
    own: bool
    """Whether mean and deviation are the batch's own, and move with it."""


def normalise(x: Matrix, running: Matrix, enough: int) -> Normalised:
    """Batch normalisation by the batch's own statistics (Ioffe and Szegedy 2015, Algorithm 1); of fewer rows than
    `enough` by the running ones, float64[2, d], mean and variance: of a single row its own would leave nothing."""
    own = len(x) >= enough
    mean, variance = (x.mean(axis=0), x.var(axis=0)) if own else running
    inverse = 1.0 / np.sqrt(variance + EPSILON)
    return Normalised((x - mean) * inverse, inverse, own)


def moved(running: Matrix, x: Matrix, share: float) -> Matrix:
    """float64[2, d], mean and variance of a history of which x, float64[n, d], is this share and the rest is as
    `running` says."""
    apart = x.mean(axis=0) - running[0]
    between = (1.0 - share) * apart * apart
    return np.stack([running[0] + share * apart, running[1] + share * (x.var(axis=0) + between - running[1])])


def normalise_backward(gradient: Matrix, normalised: Normalised) -> Matrix:
    """d loss / d x, given d loss / d values."""
    if not normalised.own:
        return gradient * normalised.inverse_deviation
    values = normalised.values
    centred: Matrix = gradient - gradient.mean(axis=0) - values * (gradient * values).mean(axis=0)
    return centred * normalised.inverse_deviation


def kept(rng: np.random.Generator, shape: tuple[int, ...], drop: float) -> Matrix:
    """A mask of dropout (Srivastava et al. 2014): 0 with probability `drop`, else 1 / (1 - drop)."""
    if not drop:
        return np.ones(shape)
    return (rng.random(shape) >= drop) / (1.0 - drop)


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam (Kingma and Ba 2015, Algorithm 1), with their decay rates."""

    rate: float
    first: float = 0.9
    second: float = 0.999
    epsilon: float = 1e-8

    def step(self, value: Matrix, gradient: Matrix, moments: Matrix, t: int) -> None:
        """Moves `value` in place. moments: [2, *value.shape], of the gradient and its square; t: this step, from 1."""
        moments[0] += (1.0 - self.first) * (gradient - moments[0])
        moments[1] += (1.0 - self.second) * (gradient * gradient - moments[1])
        corrected = np.sqrt(moments[1] / (1.0 - self.second**t)) + self.epsilon
        value -= self.rate / (1.0 - self.first**t) * moments[0] / corrected
