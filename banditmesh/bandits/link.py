"""From a linear predictor to an expected reward, and what one example tells about the predictor."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Link = Literal["identity", "logit"]
Floats = NDArray[np.floating]


class Response(NamedTuple):
    """What a link says of n predictors z.

    Attributes:
        mean: float[n], the expected reward.
        curvature: float[n], d mean / dz: the second derivative of the loss (squared error / 2, or log loss) in z.
        bound: float[n], the curvature of a parabola that touches the loss at z and lies above it everywhere.
    """

    mean: Floats
    curvature: Floats
    bound: Floats


def respond(link: Link, z: Floats) -> Response:
    """The response to z: float[n]. For `logit` the bound is that of Jaakkola and Jordan (2000), (mean - 1/2) / z."""
    if link == "identity":
        one = np.ones_like(z)
        return Response(z, one, one)
    # tanh neither overflows nor loses the sign.
    half = 0.5 * np.tanh(0.5 * z)
    bound = np.divide(half, z, out=np.full_like(z, 0.25), where=np.abs(z) > 1e-4)
    return Response(0.5 + half, 0.25 - half * half, bound)


def inverse(link: Link, mean: float) -> float:
    """The z of an expected reward; for `logit` it must lie strictly between 0 and 1."""
    return mean if link == "identity" else float(np.log(mean / (1.0 - mean)))
