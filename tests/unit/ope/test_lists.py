"""Ranked lists put together out of rows: as obp has them, wherever their rows stand, and only as far as they go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from banditmesh.ope.lists import APART, ListEvaluation, ListJudgement, Positions
from banditmesh.ope.slates import ASSUMPTIONS, Assumption

from .test_slates import GOLDEN, ROW, world

OF_OBP: dict[Assumption, float] = {"standard": 1.7384719129119255, "cascade": 1.7590186479377725}


def positions(lists: Any = ROW // 3, at: Any = ROW % 3, rewards: Any = GOLDEN.rewards) -> Positions:
    n = len(lists)
    return Positions(
        np.asarray(lists, np.uint64),
        np.asarray(at),
        GOLDEN.propensities[:n],
        GOLDEN.targets[:n],
        {"reward": rewards},
        np.zeros(n, np.bool_),
    )


def judged(*parts: Positions) -> ListJudgement:
    evaluation = ListEvaluation(["reward"])
    for part in parts:
        evaluation.add(part)
    found = evaluation.judgement
    assert found is not None
    return found


def test_values_are_those_of_obp_wherever_the_rows_of_a_list_stand() -> None:
    apart = positions().part(np.random.default_rng(1).permutation(60))
    found = judged(apart.part(np.arange(25)), apart.part(np.arange(25, 60)))
    assert (found.lists, found.mean_length, found.left_out) == (20, 3, 0)
    for assumption, value in OF_OBP.items():
        assert found.estimates["reward"][assumption].value == pytest.approx(value, abs=1e-9)
    of_position = GOLDEN.rewards * GOLDEN.targets / GOLDEN.propensities
    assert found.estimates["reward"]["independence"].value == pytest.approx(of_position.sum() / 20)
    assert found.logged["reward"] == pytest.approx(GOLDEN.rewards.sum() / 20)


def test_a_list_ends_above_its_first_hole_and_it_is_said_how_much_that_leaves_out() -> None:
    whole = positions()
    # One list lacks its second position, another one its first.
    found = judged(whole.part((ROW != 1) & (ROW != 3)))
    kept = whole.part((ROW == 0) | (ROW > 5))
    assert found.lists == 19
    assert found.left_out == pytest.approx(3 / 58)
    assert found.estimates == judged(kept).estimates
    assert "5% of the positions of lists are left out" in found.warnings[0]


def test_rows_of_no_list_and_lists_of_one_are_no_ranked_lists() -> None:
    evaluation = ListEvaluation(["reward"])
    evaluation.add(positions(at=np.full(60, -1)))
    evaluation.add(positions(lists=ROW, at=np.zeros(60, int)))
    assert evaluation.judgement is None


def test_memory_holds_the_rows_of_the_last_lists_alone() -> None:
    evaluation = ListEvaluation(["reward"])
    for start in range(0, 8 * APART, 60):
        evaluation.add(positions(lists=(start + ROW) // 3))
        assert sum(len(each.lists) for each in evaluation._waiting) <= 2 * APART
    found = evaluation.judgement
    assert found is not None
    assert found.left_out == 0
    assert found.estimates["reward"]["cascade"].value == pytest.approx(OF_OBP["cascade"], abs=1e-9)


def lists_world(rng: np.random.Generator, n: int) -> tuple[Positions, float]:
    """n lists of three out of four contents without replacement, by two policies of other weights; a content's chance
    of a click halves with each position, whatever stands above it."""
    logged, policy, rates = (
        np.array([4.0, 3.0, 2.0, 1.0]),
        np.array([2.0, 2.0, 3.0, 3.0]),
        np.array([0.1, 0.3, 0.5, 0.6]),
    )
    left, users, rows = np.ones((n, 4)), np.arange(n), []
    for position in range(3):
        chances, targets = logged * left, policy * left
        chances /= chances.sum(axis=1, keepdims=True)
        targets /= targets.sum(axis=1, keepdims=True)
        shown = (rng.random((n, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(max=3)
        clicked = rng.random(n) < rates[shown] * 0.5**position
        rows.append((chances[users, shown], targets[users, shown], clicked.astype(float)))
        left[users, shown] = 0
    propensities, targets, rewards = (np.array(each).T.ravel() for each in zip(*rows, strict=True))
    return (
        Positions(
            np.repeat(users, 3).astype(np.uint64),
            np.tile(np.arange(3), n),
            propensities,
            targets,
            {"r": rewards},
            np.tile([False, True, True], n),
        ),
        _truth(policy, rates),
    )


def _truth(policy: np.ndarray, rates: np.ndarray) -> float:
    total = 0.0
    for first in range(4):
        for second in set(range(4)) - {first}:
            for third in set(range(4)) - {first, second}:
                left = policy.sum() - policy[first]
                chance = policy[first] / policy.sum() * policy[second] / left * policy[third] / (left - policy[second])
                total += chance * (rates[first] + rates[second] / 2 + rates[third] / 4)
    return total


def independent_world(rng: np.random.Generator, n: int) -> tuple[Positions, float]:
    """n lists of two whose positions know nothing of each other."""
    rows, value = world(rng, n, cascade=False)
    at = np.tile(np.arange(2), n)
    lists, again = rows.lists.astype(np.uint64), np.zeros(2 * n, np.bool_)
    return Positions(lists, at, rows.propensities, rows.targets, {"r": rows.rewards}, again), value


@pytest.mark.parametrize("assumption", ASSUMPTIONS)
def test_over_200_logs_intervals_of_95_percent_cover_the_truth_in_92_to_98(assumption: Assumption) -> None:
    make, covered = independent_world if assumption == "independence" else lists_world, 0
    for seed in range(200):
        rows, value = make(np.random.default_rng(seed), 300)
        evaluation = ListEvaluation(["r"])
        evaluation.add(rows)
        found = evaluation.judgement
        assert found is not None
        lower, upper = found.estimates["r"][assumption].interval
        covered += lower <= value <= upper
    assert 0.92 <= covered / 200 <= 0.98, covered


def test_the_assumptions_are_warned_of_where_they_contradict_each_other() -> None:
    rng = np.random.default_rng(3)
    n = 4000
    first = rng.random(n) < 0.3  # a good first content spoils the second
    clicked = rng.random(n) < np.where(first, 0.05, 0.6)
    rewards = np.column_stack([np.zeros(n), clicked]).ravel()
    chances = np.column_stack([np.where(first, 0.3, 0.7), np.full(n, 0.5)]).ravel()
    targets = np.column_stack([np.where(first, 0.9, 0.1), np.full(n, 0.5)]).ravel()
    lists = np.repeat(np.arange(n), 2).astype(np.uint64)
    evaluation = ListEvaluation(["reward"])
    again = np.zeros(2 * n, np.bool_)
    evaluation.add(Positions(lists, np.tile([0, 1], n), chances, targets, {"reward": rewards}, again))
    found = evaluation.judgement
    assert found is not None
    assert set(found.estimates["reward"]) == set(ASSUMPTIONS)
    assert any("independence and cascade contradict each other" in each for each in found.warnings)


def caveats(rows: Positions) -> dict[Assumption, str]:
    evaluation = ListEvaluation(["r"])
    evaluation.add(rows)
    found = evaluation.judgement
    assert found is not None
    return {assumption: each.caveat for assumption, each in found.estimates["r"].items()}


def test_independence_says_where_it_is_not_to_be_believed_and_what_is() -> None:
    rows, truth = lists_world(np.random.default_rng(1), 20_000)
    said = caveats(rows)
    assert "drawn without replacement" in said["independence"]
    assert said["independence"].endswith("take cascade")
    assert said["cascade"] == said["standard"] == ""
    evaluation = ListEvaluation(["r"])
    evaluation.add(rows)
    found = evaluation.judgement
    assert found is not None
    biased, sound = (found.estimates["r"][each].interval for each in ("independence", "cascade"))
    assert not biased.lower <= truth <= biased.upper
    assert sound.lower <= truth <= sound.upper


def test_independence_is_not_doubted_where_the_draws_are_independent_or_the_policy_is_the_logs() -> None:
    rows, _ = independent_world(np.random.default_rng(1), 300)
    assert caveats(rows)["independence"] == ""
    rows, _ = lists_world(np.random.default_rng(1), 300)
    assert caveats(rows._replace(targets=rows.propensities))["independence"] == ""


def test_lists_that_the_log_does_not_support_are_warned_of() -> None:
    rows, _ = lists_world(np.random.default_rng(1), 300)
    evaluation = ListEvaluation(["r"])
    evaluation.add(rows._replace(targets=rows.targets * 0.7))  # the rest goes to what was never shown
    found = evaluation.judgement
    assert found is not None
    assert any("lists by cascade: the mean weight is 0.5" in each for each in found.warnings), found.warnings
    evaluation = ListEvaluation(["r"])
    evaluation.add(rows)
    found = evaluation.judgement
    assert found is not None
    assert not any("mean weight" in each for each in found.warnings)


def test_two_policies_are_compared_list_by_list() -> None:
    """Of the same lists the difference is known better than the two values; of equal policies it is 0."""
    rows, _ = lists_world(np.random.default_rng(2), 300)
    evaluation = ListEvaluation(["r"], compared=True)
    evaluation.add(rows._replace(base=rows.propensities))
    found = evaluation.judgement
    assert found is not None
    assert found.differences is not None
    for assumption, difference in found.differences["r"].items():
        assert difference.value == pytest.approx(found.estimates["r"][assumption].value - found.logged["r"])
        assert difference.interval.lower < difference.value < difference.interval.upper
    evaluation = ListEvaluation(["r"], compared=True)
    evaluation.add(rows._replace(base=rows.targets))
    found = evaluation.judgement
    assert found is not None
    assert found.differences is not None
    assert found.differences["r"]["cascade"] == (0, (0, 0))
