"""What `fm` and `nfm` share: how a feature's weight w and its factors v are held back.

A mini-batch's part of the objective is, with n_i the examples of feature i in one pass,

    sum_j loss_j + ridge / 2 sum_i (w_i^2 + |v_i|^2) (part of n_i) + decay s / 2 sum_j sum_i x_ij^2 |v_i|^2

The first penalty is the prior, spread over a feature's examples, so that a pass counts it once. The second one grows
with them: factors multiply each other, so the noise that one feature's many examples put into them spoils the estimates
of all its partners. How strong it must be follows from the size s of that noise, the root mean square of the residuals
(as for the nuclear norm, whose threshold is in units of the noise: Koltchinskii, Lounici, Tsybakov 2011).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.minibatch import Step

FORGOTTEN_PER_PASS = 0.5
"""Of AdaGrad's sums of squares, at the start of a pass: else its steps die out before the factors have settled."""
_USUAL_WIDTH = 10


def crowding(step: Step) -> float:
    """By how much the rows of a mini-batch are wider than ten features, on average and at least 1.

    All features of a row move at once, so with many of them a step must be shorter, and of their pairs, whose number
    grows with the square, each must be held back more.
    """
    return max(1.0, float(np.abs(step.x).sum()) / (_USUAL_WIDTH * len(step.rewards)))


def pull(step: Step, ridge: float, decay: float, coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[n_features, 1 + k]: the gradient of the penalties; coefficients: those of `step.group`, w first."""
    held = np.empty_like(coefficients)
    prior = ridge * step.share
    held[:, 0] = prior * coefficients[:, 0]
    power = step.group.sums(np.square(step.x, dtype=np.float64))
    np.multiply((prior + decay * power).astype(np.float32)[:, None], coefficients[:, 1:], out=held[:, 1:])
    return held
