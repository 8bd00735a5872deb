"""How often intervals hold the truth, and how wide they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from banditmesh.ope.evaluation import AUTO, ESTIMATORS, Evaluation
from benchmarks.ope.rivals import RIVALS
from benchmarks.ope.worlds import World

SEED = 20


@dataclass(frozen=True)
class Covered:
    """One kind of interval in one world: the share of the logs in which it holds the truth, and its median width."""

    name: str
    share: float
    width: float


@dataclass(frozen=True)
class Coverage:
    """A world. `effective` is the median effective sample size; `shifted` the share of logs found without support."""

    value: float
    effective: float
    shifted: float
    ours: dict[str, Covered]
    rivals: dict[str, Covered]


def measured(world: World, logs: int) -> Coverage:
    """All estimators with their intervals, `auto`, and for IPS other intervals too, on as many logs."""
    made = world(np.random.default_rng(SEED), logs)
    ours: dict[str, list[tuple[float, float]]] = {name: [] for name in (*ESTIMATORS, AUTO)}
    unit = made.rewards.min() >= 0 and made.rewards.max() <= 1
    among = {name: rival for name, rival in RIVALS.items() if unit or name not in _UNIT}
    rivals: dict[str, list[tuple[float, float]]] = {name: [] for name in among}
    effective, shifted = [], 0
    for rows in made.rows():
        evaluation = Evaluation()
        evaluation.add(rows)
        for name, estimate in evaluation.estimates.items():
            ours[name].append(estimate.interval)
        ours[AUTO].append(evaluation.choice.interval)
        effective.append(evaluation.support.effective)
        shifted += evaluation.support.shifted
        for name, rival in among.items():
            low, high = rival(rows.weights, rows.rewards)
            rivals[name].append((max(low, 0.0), min(high, 1.0)) if unit else (low, high))
    return Coverage(
        made.value,
        float(np.median(effective)),
        shifted / logs,
        {name: _covered(name, each, made.value) for name, each in ours.items()},
        {name: _covered(name, each, made.value) for name, each in rivals.items()},
    )


_UNIT = ("log-odds", "Bernstein", "betting")
"""Rivals for rewards from 0 to 1 alone."""


def _covered(name: str, intervals: Sequence[tuple[float, float]], value: float) -> Covered:
    low, high = np.array(intervals).T
    return Covered(name, float(((low <= value) & (value <= high)).mean()), float(np.median(high - low)))
