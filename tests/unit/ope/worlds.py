"""Logged decisions whose true answer is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from banditmesh.ope.rows import Rows


class World(NamedTuple):
    """`rows`: what was logged. `value`: what the evaluated policy truly earns per decision."""

    rows: Rows
    value: float


def world(
    rng: np.random.Generator,
    n: int,
    *,
    model_bias: float = 0.0,
    wrong_propensities: bool = False,
    logging: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1),
    rates: tuple[float, ...] = (0.1, 0.3, 0.5, 0.8),
) -> World:
    """n decisions between 4 contents with Bernoulli rewards; the reward model is off by `model_bias`."""
    rewards_of = np.array(rates)
    target = np.array([0.1, 0.1, 0.2, 0.6])
    chances = np.array(logging)
    shown = rng.choice(4, n, p=chances)
    q = rewards_of + model_bias
    rows = Rows.checked(
        np.arange(n),
        (rng.random(n) < rewards_of[shown]).astype(float),
        np.full(n, 0.25) if wrong_propensities else chances[shown],
        target[shown],
        np.full(n, target @ q),
        q[shown],
    )
    return World(rows, float(target @ rewards_of))


def adaptive_worlds(rng: np.random.Generator, repeats: int, n: int, *, floor: float = 0.01) -> list[World]:
    """Logs that a policy wrote while it learned: greedy on its own means, with probabilities that fall to `floor`.

    The evaluated policy is uniform; the reward model is the means as they were before the row.
    """
    rates, at = np.array([0.3, 0.35, 0.4, 0.5]), np.arange(repeats)
    earned, shown = np.ones((repeats, 4)), np.full((repeats, 4), 2.0)
    columns: list[tuple[np.ndarray, ...]] = []
    for t in range(n):
        means = earned / shown
        chances = np.full((repeats, 4), max(floor, 0.25 * (t + 1) ** -0.5))
        chances[at, np.argmax(means, axis=1)] += 1 - chances.sum(axis=1)
        arms = (rng.random((repeats, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=3)
        rewards = (rng.random(repeats) < rates[arms]).astype(float)
        columns.append((rewards, chances[at, arms], means.mean(axis=1), means[at, arms]))
        earned[at, arms] += rewards
        shown[at, arms] += 1
    rewards, chances, expected, predicted = (np.array(column) for column in zip(*columns, strict=True))
    return [
        World(
            Rows.checked(np.arange(n), rewards[:, i], chances[:, i], np.full(n, 0.25), expected[:, i], predicted[:, i]),
            float(rates.mean()),
        )
        for i in range(repeats)
    ]
