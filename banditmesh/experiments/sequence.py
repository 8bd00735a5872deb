"""Confidence sequences: intervals that hold at all times together, so that one may look whenever one likes.

An estimate of variance v that is made of people who come one after the other moves like a Brownian motion in the
information 1 / v: increments of S = estimate / v are independent (the canonical joint distribution: Jennison and
Turnbull 1997, "Group-sequential analysis incorporating covariate information"; it holds too when the same people come
back). For such a motion, with probability 1 - alpha at all V = 1 / v at once,

    |S_V - truth · V| <= sqrt((V + rho) log((V + rho) / (rho alpha²)))

(Robbins 1970, section 3; Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", equation 14). With a variance that is estimated it is an asymptotic confidence sequence (Waudby-Smith,
Arbour, Sinha, Kennedy, Ramdas 2021, "Time-uniform central limit theory and asymptotic confidence sequences", theorem
2.2): right once enough people have come, which is what :data:`FEWEST_BUCKETS` and :data:`FEWEST_EVENTS` ask for.
"""

from __future__ import annotations

from math import log
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST_BUCKETS: Final = 50
"""Buckets with somebody in them, of each of the two that are compared, before there is an interval."""
FEWEST_EVENTS: Final = 20
"""Buckets with an event (a click, say) of the two together, before there is an interval of its rate."""
PLANNED: Final = 10_000.0
"""Impressions of a comparison at which the intervals are narrowest by default. At 10 times as many they are 8 % wider
than if it had been planned so, at 10 000 times as many 37 %, but at a tenth 26 %: it is better to say too little."""


def mixture(planned: float, alpha: float) -> float:
    """rho, in the units of ``planned``, that makes the interval narrowest there.

    Howard et al. 2021, proposition 3: V / rho = -W(-alpha² / e) - 1 with the lower branch of Lambert's W.
    """
    x = 1.0 - 2.0 * log(alpha)
    for _ in range(50):  # x - log x = 1 - 2 log alpha; a contraction for x > 1
        x = 1.0 - 2.0 * log(alpha) + log(x)
    return planned / (x - 1.0)


def multiplier(variances: Floats, scale: Floats, *, alpha: float, planned: float = PLANNED) -> Floats:
    """How many standard errors the interval reaches to each side; inf where there is no information yet.

    Args:
        variances: float64[...], of the differences.
        scale: float64[...], the variance of a single impression; ``scale / variances`` is the information as a number
            of impressions, so that ``planned`` can be said as such.
        planned: impressions of both variants together at which the interval is to be narrowest; fixed beforehand.
    """
    # Of n impressions, half of them in each variant, the difference has the variance 4 scale / n.
    rho = mixture(planned / 4, alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = scale / variances
        factor = np.sqrt((1 + rho / information) * (np.log1p(information / rho) - 2 * log(alpha)))
    return np.where((variances > 0) & (scale > 0) & np.isfinite(factor), factor, np.inf)
