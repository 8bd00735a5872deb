"""Logged decisions whose true answer is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from banditmesh.ope.rows import Rows


class World(NamedTuple):
    """`rows`: what was logged. `value`: what the evaluated policy truly earns per decision."""

    rows: Rows
    value: float


def world(rng: np.random.Generator, n: int, *, model_bias: float = 0.0, wrong_propensities: bool = False) -> World:
    """n decisions between 4 contents with Bernoulli rewards; the reward model is off by `model_bias`."""
    rewards_of = np.array([0.1, 0.3, 0.5, 0.8])
    logging = np.array([0.4, 0.3, 0.2, 0.1])
    target = np.array([0.1, 0.1, 0.2, 0.6])
    shown = rng.choice(4, n, p=logging)
    q = rewards_of + model_bias
    rows = Rows.checked(
        np.arange(n),
        (rng.random(n) < rewards_of[shown]).astype(float),
        np.full(n, 0.25) if wrong_propensities else logging[shown],
        target[shown],
        np.full(n, target @ q),
        q[shown],
    )
    return World(rows, float(target @ rewards_of))


def part(rows: Rows, at: np.ndarray) -> Rows:
    """These rows alone."""
    return Rows(
        rows.keys[at],
        rows.rewards[at],
        rows.propensities[at],
        rows.targets[at],
        rows.expected[at],
        rows.predicted[at],
    )
