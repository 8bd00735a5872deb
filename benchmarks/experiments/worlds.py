"""Experiments whose truth is known, many at once: arrays [n_experiments, 2 variants, n_buckets]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from banditmesh.experiments.rates import rates
from banditmesh.experiments.sequence import multiplier

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


class Sums(NamedTuple):
    """After a look: sums of a metric, of its square by impression, and impressions."""

    earned: Floats
    squares: Floats
    shown: Floats


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
    amounts: float = 0.0,
) -> Iterator[Sums]:
    """Sums after each look.

    Each bucket has its people, who come again and again and click at rates of their own.

    Args:
        users: impressions of a bucket between two looks, on average.
        spread: of the people's rates: Beta(rate · spread, (1 - rate) · spread).
        amounts: each click earns a lognormal amount with this sigma; 0: it earns 1.
    """
    shape = (experiments, 2, buckets)
    own = rng.beta(rate * spread, (1 - rate) * spread, shape)
    own[:, 1] = np.minimum(own[:, 1] * (1 + lift), 1.0)
    earned, squares, shown = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for _ in range(looks):
        came = rng.poisson(users, shape)
        clicks = rng.binomial(came, own)
        shown += came
        if amounts:
            each = rng.lognormal(0.0, amounts, int(clicks.sum()))
            at = np.repeat(np.arange(clicks.size), clicks.ravel())
            earned += np.bincount(at, each, clicks.size).reshape(shape)
            squares += np.bincount(at, each**2, clicks.size).reshape(shape)
        else:
            earned += clicks
            squares += clicks
        yield Sums(earned, squares, shown)


def differences(sums: Sums) -> tuple[Floats, Floats]:
    """float64[n_experiments] each: the difference of the variants, and its variance."""
    found = rates(sums.earned, sums.shown)
    return found.values[:, 1] - found.values[:, 0], found.variances.sum(axis=1)


def excludes_zero(sums: Sums, *, alpha: float = 0.05, planned: float = 10_000) -> Bools:
    """bool[n_experiments]: whether the confidence sequence of the difference excludes 0 now."""
    difference, variance = differences(sums)
    shown = sums.shown.sum(axis=(1, 2))
    scale = sums.squares.sum(axis=(1, 2)) / shown - (sums.earned.sum(axis=(1, 2)) / shown) ** 2
    half = multiplier(variance, scale, alpha=alpha, planned=planned) * np.sqrt(variance)
    return np.abs(difference) > half
