"""Experiments whose truth is known, many at once: arrays [n_experiments, 2 variants, n_buckets]."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from banditmesh.experiments.rates import rates
from banditmesh.experiments.sequence import multiplier

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def peeked(
    rng: np.random.Generator,
    experiments: int,
    looks: int,
    *,
    buckets: int = 100,
    users: float = 3.0,
    rate: float = 0.1,
    lift: float = 0.0,
    spread: float = 10.0,
) -> Iterator[tuple[Floats, Floats]]:
    """Sums of clicks and impressions after each look.

    Each bucket has its people, who come again and again and click at rates of their own.

    Args:
        users: impressions of a bucket between two looks, on average.
        spread: of the people's rates: Beta(rate · spread, (1 - rate) · spread).
    """
    shape = (experiments, 2, buckets)
    own = rng.beta(rate * spread, (1 - rate) * spread, shape)
    own[:, 1] *= 1 + lift
    clicks, shown = np.zeros(shape), np.zeros(shape)
    for _ in range(looks):
        came = rng.poisson(users, shape)
        shown += came
        clicks += rng.binomial(came, np.minimum(own, 1.0))
        yield clicks, shown


def excludes_zero(clicks: Floats, shown: Floats, *, alpha: float = 0.05, planned: float = 10_000) -> Floats:
    """bool[n_experiments]: whether the confidence sequence of the difference excludes 0 now."""
    found = rates(clicks, shown)
    variance = found.variances.sum(axis=1)
    rate = clicks.sum(axis=(1, 2)) / shown.sum(axis=(1, 2))
    half = multiplier(variance, rate * (1 - rate), alpha=alpha, planned=planned) * np.sqrt(variance)
    return np.abs(found.values[:, 1] - found.values[:, 0]) > half
