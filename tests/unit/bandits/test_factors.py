"""What holds weights and factors back, against the penalties written out."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.factors import crowding, pull
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.table import Grouping

ROWS = np.array([1, 2, 1, 3, 2, 1], np.int32)
X = np.array([1.0, 0.5, 1.0, -2.0, 3.0, 1.0], np.float32)
SHARE = np.array([0.5, 0.1, 1.0])


def penalty(coefficients: np.ndarray, ridge: float, decay: float) -> float:
    """Of rows 1 to 3; coefficients: [3, 1 + k]."""
    prior = ridge / 2 * (SHARE[:, None] * coefficients**2).sum()
    return float(
        prior + decay / 2 * sum(x * x * (coefficients[row - 1, 1:] ** 2).sum() for row, x in zip(ROWS, X, strict=True))
    )


def test_the_pull_is_the_gradient_of_the_penalties() -> None:
    coefficients = np.random.default_rng(0).normal(size=(3, 3))
    offsets = np.array([0, 2, 4, 6])
    owner, new = np.repeat([0, 1, 2], 2), np.zeros(0, np.int32)
    step = Step(offsets, owner, ROWS, new, Grouping.of(ROWS), X, SHARE, np.zeros(3))
    found = pull(step, 3.0, 0.2, coefficients.astype(np.float32))
    for at in np.ndindex(3, 3):
        above, below = coefficients.copy(), coefficients.copy()
        above[at] += 1e-5
        below[at] -= 1e-5
        wanted = (penalty(above, 3.0, 0.2) - penalty(below, 3.0, 0.2)) / 2e-5
        assert found[at] == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_rows_wider_than_usual_crowd_each_other() -> None:
    def step(width: int) -> Step:
        rows, owner = np.tile(np.arange(1, width + 1, dtype=np.int32), 2), np.repeat([0, 1], width)
        group = Grouping.of(rows)
        offsets, new, x = np.array([0, width, 2 * width]), np.zeros(0, np.int32), np.ones(2 * width, np.float32)
        return Step(offsets, owner, rows, new, group, x, np.ones(width), np.zeros(2))

    assert [crowding(step(width)) for width in (1, 10, 40)] == [1.0, 1.0, 4.0]
