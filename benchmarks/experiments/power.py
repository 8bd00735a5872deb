"""What it costs to look all the time: power, and how soon a difference is found."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from benchmarks.experiments.worlds import differences, excludes_zero, peeked

LIFTS: Final = (0.05, 0.1, 0.15, 0.2, 0.3)
_BUCKETS, _USERS, _RATE = 200, 1.5, 0.1
"""So 200 looks are 120 000 impressions."""


@dataclass(frozen=True)
class Power:
    """Of experiments in which there is a lift.

    Attributes:
        fixed: share of them that a fixed-horizon test finds at the end.
        sequence: share that the confidence sequence has found by then.
        stopped: share of the horizon that those took, on average.
        saved: share of the horizon that all experiments took when each was ended as soon as the sequence said so.
    """

    lift: float
    fixed: float
    sequence: float
    stopped: float
    saved: float


def power(experiments: int, looks: int) -> list[Power]:
    """For each lift."""
    z = NormalDist().inv_cdf(0.975)
    found = []
    for lift in LIFTS:
        first = np.full(experiments, looks)
        now = np.zeros(experiments, np.bool_)
        rng = np.random.default_rng(5)
        world = peeked(rng, experiments, looks, buckets=_BUCKETS, users=_USERS, rate=_RATE, lift=lift, spread=50.0)
        for look, sums in enumerate(world):
            claims = excludes_zero(sums) if look > 1 else now
            first = np.where(claims & (first == looks), look, first)
            difference, variance = differences(sums)
            now = np.abs(difference) > z * np.sqrt(variance)
        ended = first < looks
        spent = np.minimum(first + 1, looks) / looks
        found.append(Power(lift, now.mean(), ended.mean(), spent[ended].mean() if ended.any() else 1.0, spent.mean()))
    return found
