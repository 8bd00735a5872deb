"""How intervals are made: a t-interval corrected for skewness, taken with one more row, the worst that could come.

What goes wrong with mean ± 1.96 standard errors off-line is skewness. A heavy weight, or a rare click, is most often
not in the log; then the mean is too low, and so is the deviation, and the interval says too little with too much
confidence. Two remedies, both from sums alone:

1. Hall 1992, "On the removal of skewness by transformation", J. R. Statist. Soc. B 54: the t statistic is transformed
   by a cubic that takes its skewness away, and the interval is transformed back. It errs by 1/n where the normal
   interval errs by 1/sqrt(n), as the bootstrap-t does, without its draws.
2. One more row, in each direction the worst that the log could have held: the largest weight there was, with the
   best reward for the upper bound and with the worst for the lower one. So 500 rows without a click do not say that
   the rate is 0, and a policy whose weights are heavy pays for it. The idea is that of Fay and Feuer 1997, "Confidence
   intervals for directly standardized rates", for weighted counts, and of the empirical-likelihood intervals of
   Karampatziakis, Langford, Mineiro 2020, "Empirical Likelihood for Contextual Bandits".

Chosen by simulation among the normal interval, the bootstrap, betting intervals (Waudby-Smith, Wu, Ramdas,
Karampatziakis, Mineiro 2022, "Anytime-valid off-policy inference for contextual bandits") and stabilised ones for
logs of a policy that was itself learning (Bibaut, Dimakopoulou, Kallus, Chambaz, van der Laan 2021,
"Post-contextual-bandit inference"): the coverage of each is measured.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from banditmesh.ope.moments import Floats, Moments


class Interval(NamedTuple):
    """Bounds on the expected reward per decision; NaN while there are too few rows to say."""

    lower: float
    upper: float

    @property
    def width(self) -> float:
        """How far they are apart."""
        return self.upper - self.lower

    def within(self, limits: Interval) -> Interval:
        """What of it lies within the limits; their nearer end when nothing does. Where it knows nothing, the limits."""
        lower = limits.lower if math.isnan(self.lower) else min(max(self.lower, limits.lower), limits.upper)
        upper = limits.upper if math.isnan(self.upper) else max(min(self.upper, limits.upper), limits.lower)
        return Interval(lower, upper)

    def stretched_to(self, value: float) -> Interval:
        """The smallest interval that has the value in it too; NaN stretches nothing."""
        return self if math.isnan(value) else Interval(min(self.lower, value), max(self.upper, value))


UNKNOWN = Interval(math.nan, math.nan)


def lower(moments: Moments, gradient: Floats, worst: tuple[float, ...], confidence: float) -> float:
    """How far below the mean of gradient · (a, b) the bound lies, with `worst` as one more pair: at most 0.

    The mean is that of the pairs without the worst one, whose effect on it is part of the answer. NaN with fewer than
    two pairs. `confidence` is that of the two-sided interval: the bound fails in half of its complement.
    """
    if moments.n < 2:
        return math.nan
    with_worst = moments.beside(worst)
    error, skewness = with_worst.along(gradient)
    shift = float(gradient @ (with_worst.mean - moments.mean))
    reach = untransformed(student(0.5 + confidence / 2, with_worst.n - 1), skewness, with_worst.n)
    return min(shift - error * reach, 0.0)


def upper(moments: Moments, gradient: Floats, worst: tuple[float, ...], confidence: float) -> float:
    """How far above the mean the bound lies: at least 0. See `lower`."""
    return -lower(moments, -gradient, worst, confidence)


def untransformed(quantile: float, skewness: float, n: int) -> float:
    """The t statistic that Hall's cubic takes to this quantile, g⁻¹ (his Equation 2.4 inverted).

    g(t) = t + k t²/3 + k² t³/27 + k/6 with k = skewness of the mean, which is that of one row divided by sqrt(n).

    Args:
        quantile: of the transformed statistic.
        skewness: k.
        n: rows; bounds k from above, for no n numbers have more.
    """
    k = max(min(skewness, math.sqrt(n)), -math.sqrt(n))
    if abs(k) < 1e-8:
        return quantile
    return 3.0 / k * (float(np.cbrt(1.0 + k * (quantile - k / 6.0))) - 1.0)


def student(probability: float, freedom: int) -> float:
    """The quantile of Student's t (Cornish-Fisher: Abramowitz and Stegun 26.7.5; exact for one and two degrees)."""
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / freedom ** (order + 1) for order, term in enumerate(terms)))
