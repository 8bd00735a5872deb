"""When a weight has changed: its residuals lean to one side for longer than chance would have them.

For each feature stand the sums of x_j r_j, with r_j the residuals in units of the noise, and of x_j^2, over its last
`_MEMORY` examples or so. As long as the weight is right the first one, e, has mean 0 and variance n (1 + n / q), with n
the second and q the weight's precision before them. When e^2 is more than `_TOLD` times that, what was learned before
these examples is given up: the precision falls to that of the prior and of these examples, so the weight moves as fast
as a new one would, and its doubt is as large. (A two-sided test of a running mean on each weight, as Page 1954; a false
alarm costs an old weight no more than the precision that it has again after as many examples.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.minibatch import Step

Floats = NDArray[np.float64]

_MEMORY = 100.0
_TOLD = 3.0
_LARGEST = 10.0
"""A residual counts up to so many units of the noise."""


class Noticed(NamedTuple):
    """What a mini-batch tells of its features, in the order of `Step.group`.

    Attributes:
        sums: float64[n_features, 2], e and n from now on.
        precision: float64[n_features], of the weights from now on.
    """

    sums: Floats
    precision: Floats


def noticed(step: Step, residuals: Floats, sums: Floats, precision: Floats, prior: Floats, curvature: float) -> Noticed:
    """After a mini-batch was learned.

    Args:
        residuals: float64[n], predictions before it less rewards, in units of the noise.
        sums: float64[n_features, 2], e and n before it.
        precision: float64[n_features], of the weights after it.
        prior: float64[n_features], of their priors.
        curvature: what an example with x = 1 adds to a precision.
    """
    x, count = step.x.astype(np.float64), len(step.group.rows)
    r = np.clip(residuals, -_LARGEST, _LARGEST)
    lean, power = np.bincount(step.group.member, x * r[step.owner], count), step.group.sums(x * x)
    left = np.exp(-power / _MEMORY)
    e, n = sums[:, 0] * left + lean, sums[:, 1] * left + power
    recent = curvature * n
    changed = (e * e > _TOLD * n * (1.0 + recent / precision)) & (precision - prior > recent)
    fallen = np.where(changed, prior + recent, precision)
    return Noticed(np.where(changed[:, None], 0.0, np.stack([e, n], axis=1)), fallen)
