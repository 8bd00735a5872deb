"""When a whole kind of weights has changed: what it says of a reward no longer has to do with what comes.

With c_jk the part of example j's predictor that is made of the weights of kind k (as given, crosses, arms) and r_j what
the prediction lacks, both before the example was learned from, the regression

    r_j = sum_k b_k c_jk + noise,   b ~ N(0, I)

has b_k = 0 as long as weights are as likely above the truth as below it, for they are posterior means, whatever was
picked by them. 1 + b_k is the calibration slope (Copas 1983, "Regression, prediction and shrinkage"): below 1 the kind
says too much. That is one number for all weights of the kind, so a hundred examples after users changed what they like
tell what no weight's own residuals do (`surprise`), and it tells of those weights as well that are not shown any more.
When b_k is `_TOLD` standard deviations below 0, with moments over the last `_MEMORY` examples or so, each weight w of
the kind keeps the part p = 1 + b_k of itself, cut to [0, 1]. Its belief is that of a state which has gone on by p and
noise so that its prior stays what it was (West and Harrison 1997, "Bayesian Forecasting and Dynamic Models", Theorem
4.1 with G = p, W = (1 - p^2) / prior):

    mean p w,   variance p^2 / q + (1 - p^2) / prior.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.prior_width import KINDS

Floats = NDArray[np.float64]

SHAPE: Final = (KINDS, KINDS + 1)
"""Of the moments: sums of c_k c_l, beside them those of c_k r, in units of the noise."""

_MEMORY = 400.0
_TOLD = 3.0
_TINY = 1e-9


def parts(step: Step, mean: Floats, kind: NDArray[np.int64]) -> Floats:
    """float64[n, KINDS]: c. mean, kind: [n_features], of the weights in the order of `Step.group`."""
    n = len(step.rewards)
    at = step.owner * KINDS + kind[step.group.member]
    said = np.bincount(at, mean[step.group.member] * step.x, n * KINDS)
    return np.asarray(said, np.float64).reshape(n, KINDS)


def moved(moments: Floats, said: Floats, lacks: Floats, curvature: Floats, unit: float) -> Floats:
    """The moments after a mini-batch.

    Args:
        moments: float64 of `SHAPE`.
        said: float64[n, KINDS], c.
        lacks: float64[n], rewards less predictions, r.
        curvature: float64[n], of the loss there.
        unit: of the loss: the noise's variance under squared error, 1 under log loss.
    """
    left = np.exp(-len(lacks) / _MEMORY)
    # einsum adds up by itself: the bits are the same with any BLAS.
    power = np.einsum("ja,jb->ab", said * curvature[:, None], said)
    return np.asarray(moments * left + np.column_stack([power, np.einsum("ja,j->a", said, lacks)]) / unit)


def kept(moments: Floats) -> Floats | None:
    """float64[KINDS], p of each kind; None when nothing tells of a change."""
    precision = moments[:, :KINDS] + np.eye(KINDS)
    # In units of its diagonal, and a little off singular: whatever the size of rewards, the inverse is there.
    unit = np.sqrt(precision.diagonal())
    covariance = np.linalg.inv(precision / np.outer(unit, unit) + _TINY * np.eye(KINDS)) / np.outer(unit, unit)
    slope = covariance @ moments[:, KINDS]
    told = slope < -_TOLD * np.sqrt(covariance.diagonal())
    return np.where(told, np.maximum(1.0 + slope, 0.0), 1.0) if told.any() else None
