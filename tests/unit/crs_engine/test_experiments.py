"""A user stays in a variant, shares are as configured, and ramping moves as few as it can."""

from __future__ import annotations

import numpy as np
import pytest

from services.crs_engine.experiments import Assignment

USERS = [f"user-{number}" for number in range(20_000)]


def test_a_user_stays_in_a_variant_alone_and_among_others() -> None:
    assignment = Assignment("spring", {"a": 1, "b": 1, "c": 1})
    together = assignment.of(USERS[:200]).tolist()
    assert [int(assignment.of([user])[0]) for user in USERS[:200]] == together


@pytest.mark.parametrize("weights", [(90.0, 10.0), (1.0, 1.0, 2.0), (0.0, 3.0, 1.0)])
def test_shares_are_in_proportion_to_the_weights(weights: tuple[float, ...]) -> None:
    assignment = Assignment("spring", {f"v{number}": weight for number, weight in enumerate(weights)})
    shares = np.bincount(assignment.of(USERS), minlength=len(weights)) / len(USERS)
    # four standard deviations of a share of 20 000
    assert np.abs(shares - np.array(weights) / sum(weights)).max() < 4 * 0.5 / np.sqrt(len(USERS))


def test_ramping_a_variant_up_moves_users_into_it_alone_and_no_more_than_needed() -> None:
    before = Assignment("spring", {"a": 90, "b": 10, "c": 10}).of(USERS)
    after = Assignment("spring", {"a": 90, "b": 30, "c": 10}).of(USERS)
    moved = before != after
    assert (after[moved] == 1).all()
    assert moved.mean() == pytest.approx(30 / 130 - 10 / 110, abs=0.015)


def test_a_new_variant_takes_users_from_the_others_and_mixes_nothing_else() -> None:
    before = Assignment("spring", {"a": 1, "b": 1}).of(USERS)
    after = Assignment("spring", {"a": 1, "b": 1, "new": 1}).of(USERS)
    assert ((before == after) | (after == 2)).all()


def test_another_salt_is_another_experiment() -> None:
    weights = {"a": 1.0, "b": 1.0}
    spring, summer = Assignment("spring", weights).of(USERS), Assignment("summer", weights).of(USERS)
    assert (spring == summer).mean() == pytest.approx(0.5, abs=0.015)


def test_the_order_in_which_variants_are_written_changes_nobody() -> None:
    one, other = Assignment("s", {"a": 1, "b": 2}), Assignment("s", {"b": 2, "a": 1})
    assert [one.names[at] for at in one.of(USERS[:500])] == [other.names[at] for at in other.of(USERS[:500])]


def test_a_variant_of_weight_zero_gets_nobody() -> None:
    assert (Assignment("s", {"off": 0.0, "a": 1.0, "b": 1.0}).of(USERS) != 0).all()
