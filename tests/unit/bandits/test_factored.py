"""What holds factors back, against the penalties written out; how far interactions are believed."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.factored import crowding, pull
from banditmesh.bandits.fm import Fm, FmParams
from banditmesh.bandits.hashing import CROSSED
from banditmesh.bandits.linear import Linear, LinearParams
from banditmesh.bandits.minibatch import Step
from banditmesh.bandits.nfm import Nfm
from banditmesh.bandits.table import Grouping

from .test_hashed import ask, of_one_arm

ROWS = np.array([1, 2, 1, 3, 2, 1], np.int32)
X = np.array([1.0, 0.5, 1.0, -2.0, 3.0, 1.0], np.float32)
SHARE = np.array([0.5, 0.1, 1.0])


def penalty(factors: np.ndarray, ridge: float, decay: float) -> float:
    """Of rows 1 to 3; factors: [3, k]."""
    prior = ridge / 2 * (SHARE[:, None] * factors**2).sum()
    return float(prior + decay / 2 * sum(x * x * (factors[row - 1] ** 2).sum() for row, x in zip(ROWS, X, strict=True)))


def test_the_pull_is_the_gradient_of_the_penalties() -> None:
    factors = np.random.default_rng(0).normal(size=(3, 3))
    offsets = np.array([0, 2, 4, 6])
    owner, new = np.repeat([0, 1, 2], 2), np.zeros(0, np.int32)
    step = Step(offsets, owner, ROWS, new, Grouping.of(ROWS), X, SHARE, np.zeros(3), np.zeros(6, np.bool_))
    found = pull(step, 3.0, 0.2, factors.astype(np.float32))
    for at in np.ndindex(3, 3):
        above, below = factors.copy(), factors.copy()
        above[at] += 1e-5
        below[at] -= 1e-5
        wanted = (penalty(above, 3.0, 0.2) - penalty(below, 3.0, 0.2)) / 2e-5
        assert found[at] == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_rows_wider_than_usual_crowd_each_other() -> None:
    def step(width: int) -> Step:
        rows, owner = np.tile(np.arange(1, width + 1, dtype=np.int32), 2), np.repeat([0, 1], width)
        group = Grouping.of(rows)
        offsets, new, x = np.array([0, width, 2 * width]), np.zeros(0, np.int32), np.ones(2 * width, np.float32)
        return Step(offsets, owner, rows, new, group, x, np.ones(width), np.zeros(2), x == 0)

    assert [crowding(step(width)) for width in (1, 10, 40)] == [1.0, 1.0, 4.0]


def ones_and_pairs(n: int, seed: int, *, pairs: bool) -> tuple[SparseRows, np.ndarray]:
    """Rows of two categories; rewards are noise around what the first one says, or what both of them say together."""
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 3, n), rng.integers(0, 3, n)
    rows = SparseRows.from_lists(
        [[(1 + i, 1.0), (4 + j, 1.0)] for i, j in zip(left.tolist(), right.tolist(), strict=True)]
    )
    said = (left == right) if pairs else (left == 0)
    return rows, said + rng.normal(0, 0.3, n)


@pytest.mark.parametrize("kind", [Fm, Nfm])
def test_interactions_are_believed_where_they_predict_and_nowhere_else(kind: type[Fm] | type[Nfm]) -> None:
    believed = {}
    for pairs in (False, True):
        policy = kind(kind.Params.model_validate({"arm": "none", "factors": 4, "decay": 0.01}))
        policy.learn(of_one_arm(*ones_and_pairs(8000, 1, pairs=pairs)))
        believed[pairs] = policy._believed
    assert believed[True] > 0.8
    assert believed[False] < 0.5


@pytest.mark.parametrize("kind", [Fm, Nfm])
@pytest.mark.parametrize("seed", range(4))
def test_it_predicts_as_well_as_linear_where_single_features_say_all(kind: type[Fm] | type[Nfm], seed: int) -> None:
    errors = []
    for policy in (Linear(LinearParams(arm="none")), kind(kind.Params.model_validate({"arm": "none"}))):
        rows, rewards = ones_and_pairs(1500, seed, pairs=False)
        policy.learn(of_one_arm(rows, rewards))
        asked = [[(1 + i, 1.0), (4 + j, 1.0)] for i in range(3) for j in range(3)]
        truth = np.repeat([1.0, 0.0, 0.0], 3)
        errors.append(float(np.square(policy.score(ask(*asked)).mean - truth).mean()))
    assert errors[1] <= errors[0] + 1e-3


def test_crosses_take_no_part_in_interactions() -> None:
    rows = SparseRows.from_lists([[(1, 1.0), (2, 1.0), (int(CROSSED) | 9, 1.0)]] * 600)
    policy = Fm(FmParams(arm="none"))
    policy.learn(of_one_arm(rows, np.arange(600) % 2.0))
    saved = policy.tensors()
    assert saved["ids"].tolist() == [1, 2, 9]
    assert (saved["scale"][1:3] > 0).all()
    assert (saved["scale"][3] == 0).all()
    assert saved["weight"][3] != 0
