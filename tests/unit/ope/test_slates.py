"""Ranked lists. The golden values are those of obp 0.4.1 for the lists below.

They were made once, by its `SlateStandardIPS`, `SlateIndependentIPS` and `SlateRewardInteractionIPS` with `len_list=3`:
`pscore` is the product of the whole list's P, `pscore_cascade` the product up to the position, `pscore_item_position`
OWN_P, and so for PI. `make bench-learning` compares on the Open Bandit data.
"""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.errors import InvalidBatch
from banditmesh.ope.slates import ASSUMPTIONS, Assumption, ListRows, SlateIps

ROW = np.arange(60)
GOLDEN = ListRows(
    lists=ROW // 3,
    rewards=((ROW * 7) % 5 < 2) + (ROW % 4 == 0) * 0.25,
    propensities=0.1 + 0.8 * np.abs(np.cos(ROW * 0.7)),
    targets=0.05 + 0.9 * np.abs(np.sin(ROW * 1.3)),
    own_propensities=0.1 + 0.8 * np.abs(np.cos(ROW * 0.3)),
    own_targets=0.05 + 0.9 * np.abs(np.sin(ROW * 0.9)),
)


@pytest.mark.parametrize(
    ("assumption", "value"),
    [("standard", 1.7384719129119255), ("independence", 1.861034623727711), ("cascade", 1.7590186479377725)],
)
def test_values_are_those_of_obp(assumption: Assumption, value: float) -> None:
    estimator = SlateIps(assumption)
    estimator.add(GOLDEN)
    assert estimator.value == pytest.approx(value, abs=1e-9)


def part(rows: ListRows, start: int, end: int) -> ListRows:
    names = ("lists", "rewards", "propensities", "targets", "own_propensities", "own_targets")
    return ListRows(*(getattr(rows, name)[start:end] for name in names))


@pytest.mark.parametrize("assumption", ASSUMPTIONS)
def test_neither_batches_nor_merging_change_anything(assumption: Assumption) -> None:
    whole, first, second = SlateIps(assumption), SlateIps(assumption), SlateIps(assumption)
    whole.add(GOLDEN)
    first.add(part(GOLDEN, 0, 15))
    first.add(part(GOLDEN, 15, 30))
    second.add(part(GOLDEN, 30, 60))
    first.merge(second)
    assert first.lists == 20
    assert [*first.interval(), first.value] == pytest.approx([*whole.interval(), whole.value])


def test_lists_of_other_lengths_have_products_of_their_own() -> None:
    rows = ListRows(np.array([7, 7, 7, 3]), np.ones(4), np.full(4, 0.5), np.array([1.0, 0.5, 0.25, 0.5]))
    assert rows.weights("cascade").tolist() == [2.0, 2.0, 1.0, 1.0]
    assert rows.weights("standard").tolist() == [1.0, 1.0, 1.0, 1.0]
    assert rows.weights("independence").tolist() == [2.0, 1.0, 0.5, 1.0]


def test_a_list_that_does_not_stand_together_is_refused() -> None:
    with pytest.raises(InvalidBatch, match="stand together"):
        ListRows(np.array([1, 2, 1]), np.ones(3), np.ones(3), np.ones(3))


def world(rng: np.random.Generator, n: int, *, cascade: bool) -> tuple[ListRows, float]:
    """Lists of two out of two contents a position, and what the evaluated policy would earn."""
    logged, policy, rates = np.array([0.7, 0.3]), np.array([0.4, 0.6]), np.array([0.2, 0.5])
    shown = (rng.random((n, 2)) < logged[1]).astype(int)
    rate = rates[shown]
    if cascade:  # a good first content spoils the second
        rate[:, 1] *= np.where(shown[:, 0] == 1, 0.2, 1.0)
    rewards = (rng.random((n, 2)) < rate).astype(float)
    mean = float(policy @ rates)
    second = float(policy[0] + 0.2 * policy[1]) * mean if cascade else mean
    rows = ListRows(np.repeat(np.arange(n), 2), rewards.ravel(), logged[shown].ravel(), policy[shown].ravel())
    return rows, mean + second


@pytest.mark.parametrize("assumption", ASSUMPTIONS)
def test_intervals_cover_where_the_assumption_holds(assumption: Assumption) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        rows, value = world(rng, 300, cascade=assumption != "independence")
        estimator = SlateIps(assumption)
        estimator.add(rows)
        covered += estimator.interval().lower <= value <= estimator.interval().upper
    assert 0.92 <= covered / 200 <= 0.99


def test_independence_is_wrong_where_users_go_through_the_list_from_the_top() -> None:
    rows, value = world(np.random.default_rng(2), 20_000, cascade=True)
    found = {}
    for assumption in ASSUMPTIONS:
        estimator = SlateIps(assumption)
        estimator.add(rows)
        found[assumption] = estimator
    assert not found["independence"].interval().lower <= value <= found["independence"].interval().upper
    assert found["cascade"].value == pytest.approx(value, abs=0.03)
    assert found["cascade"].interval().width <= found["standard"].interval().width * 1.001
