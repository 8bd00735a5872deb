"""Rates of a variant with people as the unit: ratios of sums, their variances over buckets of users.

An impression is no unit of its own: a user's impressions resemble each other, and a variance over impressions is too
small. Users are hashed into buckets, independently of their variants, so buckets are independent units that hold whole
users, and memory does not grow with their number (Deng, Lu, Litz 2017, "Trustworthy analysis of online A/B tests";
bucketing as in Chapelle, Joachims, Radlinski, Yue 2012, section 4.2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Rates(NamedTuple):
    """Estimates with their variances, both float64[...]; NaN where nothing was shown."""

    values: Floats
    variances: Floats


class BeforeSums(NamedTuple):
    """What the same users' buckets earned before the experiment, float64[n_variants, n_buckets] each."""

    numerators: Floats
    denominators: Floats


def rates(numerators: Floats, denominators: Floats) -> Rates:
    """Ratio of sums over buckets, float64[..., n_buckets] each, with the delta method's variance.

    Deng, Knoblich, Lu 2018 ("Applying the delta method in metric analytics", equation 3):
    Var(R) = n / (n - 1) · sum_b (Y_b - R N_b)² / (sum_b N_b)².
    """
    total = denominators.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = numerators.sum(axis=-1) / total
        off = numerators - values[..., None] * denominators
        return Rates(values, _variance(off, total))


def adjusted(numerators: Floats, denominators: Floats, before: BeforeSums) -> Rates:
    """The same, freed from what was known of the users before: CUPED (Deng, Xu, Kohavi, Walker 2013, section 3.2).

    Before the experiment all variants were served alike, so what a variant's buckets then earned above or below the
    mean of all is chance, and theta times it is taken off. theta is the regression of the one residual on the other,
    over the buckets of all variants; with nothing before, or nothing in common, it is 0 and these are :func:`rates`.

    Args:
        numerators, denominators: float64[n_variants, n_buckets].
    """
    plain = rates(numerators, denominators)
    total = denominators.sum(axis=-1)
    shown_before = float(before.denominators.sum())
    if not shown_before or not (total > 0).any():
        return plain
    mean = float(before.numerators.sum()) / shown_before
    covariate = before.numerators - mean * before.denominators
    values = np.nan_to_num(plain.values)
    off = numerators - values[:, None] * denominators
    centred = covariate - covariate.mean(axis=-1, keepdims=True)
    square = float((centred**2).sum())
    theta = float((centred * off).sum()) / square if square > 0 else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return Rates(
            plain.values - theta * covariate.sum(axis=-1) / total,
            _variance(off - theta * centred, total),
        )


def _variance(off: Floats, total: Floats) -> Floats:
    n = off.shape[-1]
    variances: Floats = n / (n - 1) * (off**2).sum(axis=-1) / total**2
    return variances
