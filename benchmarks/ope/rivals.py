"""Other intervals for the same mean, to choose among: each takes the terms w r of IPS, w, and r of one log."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bounds = tuple[float, float]
_Z = 1.959964
_REPLICATES = 200
_ERROR = 0.025


def normal(weights: Floats, rewards: Floats) -> Bounds:
    """The central limit theorem."""
    terms = weights * rewards
    half = _Z * terms.std(ddof=1) / math.sqrt(len(terms))
    return terms.mean() - half, terms.mean() + half


def percentiles(weights: Floats, rewards: Floats) -> Bounds:
    """The bootstrap's percentiles (Efron 1979)."""
    means, _ = _bootstrap(weights * rewards)
    return tuple(np.quantile(means, [_ERROR, 1 - _ERROR]).tolist())


def bootstrap_t(weights: Floats, rewards: Floats) -> Bounds:
    """The bootstrap of the t statistic (Efron 1982)."""
    terms = weights * rewards
    means, deviations = _bootstrap(terms)
    error = terms.std(ddof=1) / math.sqrt(len(terms))
    there = deviations > 0
    if error == 0 or not there.any():
        return terms.mean(), terms.mean()
    low, high = np.quantile(
        (means - terms.mean())[there] / deviations[there] * math.sqrt(len(terms)), [_ERROR, 1 - _ERROR]
    )
    return terms.mean() - high * error, terms.mean() - low * error


def log_odds(weights: Floats, rewards: Floats) -> Bounds:
    """The normal interval on the scale of log-odds, for a mean in (0, 1)."""
    terms = weights * rewards
    mean = min(max(terms.mean(), 0.5 / len(terms)), 1 - 0.5 / len(terms))
    half = _Z * terms.std(ddof=1) / math.sqrt(len(terms)) / (mean * (1 - mean))
    middle = math.log(mean / (1 - mean))
    return 1 / (1 + math.exp(min(half - middle, 700))), 1 / (1 + math.exp(max(-half - middle, -700)))


def bernstein(weights: Floats, rewards: Floats) -> Bounds:
    """Empirical Bernstein on both sides (Waudby-Smith et al. 2022, Proposition 2), for rewards in [0, 1]."""
    return _bernstein(weights * rewards), 1 - _bernstein(weights * (1 - rewards))


def betting(weights: Floats, rewards: Floats) -> Bounds:
    """Betting on both sides (Waudby-Smith et al. 2022, Theorem 1), a mixture of fixed bets; never too short."""
    return _betting(weights * rewards), 1 - _betting(weights * (1 - rewards))


def stabilised(weights: Floats, rewards: Floats) -> Bounds:
    """Terms divided by their deviation so far, for logs of a policy that was learning (after Bibaut et al. 2021)."""
    terms = weights * rewards
    n = np.arange(1, len(terms) + 1)
    squares, means = np.cumsum(terms**2) / n, np.cumsum(terms) / n
    before = np.concatenate([[1.0], np.sqrt(np.maximum(squares - means**2, 1e-4))[:-1]])
    share = 1 / before
    mean = (share * terms).sum() / share.sum()
    half = _Z * math.sqrt((share**2 * (terms - mean) ** 2).sum()) / share.sum()
    return mean - half, mean + half


RIVALS: dict[str, Callable[[Floats, Floats], Bounds]] = {
    "normal": normal,
    "log-odds": log_odds,
    "bootstrap": percentiles,
    "bootstrap-t": bootstrap_t,
    "stabilised": stabilised,
    "Bernstein": bernstein,
    "betting": betting,
}


@lru_cache(maxsize=1)
def _draws(rows: int) -> Floats:
    """float64[replicates, rows]: how often each row counts. The same for all logs of one length, to save the time."""
    drawn: Floats = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), _REPLICATES).astype(float)
    return drawn


def _bootstrap(terms: Floats) -> tuple[Floats, Floats]:
    drawn = _draws(len(terms))
    means = drawn @ terms / len(terms)
    return means, np.sqrt(np.maximum(drawn @ terms**2 / len(terms) - means**2, 0))


def _bernstein(terms: Floats) -> float:
    """Lower bound of the mean of terms >= 0: the best of a few fixed bets, each with its share of the error."""
    n = len(terms)
    before = np.minimum(np.concatenate([[0.5], (0.5 + np.cumsum(terms)[:-1]) / np.arange(2, n + 1)]), 1.0)
    bets = np.array([0.8, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005])
    cost = -np.log1p(-bets) - bets
    allowance = math.log(len(bets) / _ERROR)
    found = terms.mean() - (allowance / n + cost * ((terms - before) ** 2).mean()) / bets
    return max(float(found.max()), 0.0)


def _betting(terms: Floats) -> float:
    """Lower bound of the mean of terms >= 0: the least mean against which the mixed bets have not won 1 / error."""
    shares = np.array([0.9, 0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.015, 0.006])
    low, high = 1e-9, max(float(terms.mean()), 1e-9)
    for _ in range(20):
        mean = (low + high) / 2
        won = np.log1p(shares[:, None] * (terms / mean - 1)).sum(axis=1)
        most = won.max()
        if most + math.log(np.exp(won - most).mean()) >= -math.log(_ERROR):
            low = mean
        else:
            high = mean
    return low
