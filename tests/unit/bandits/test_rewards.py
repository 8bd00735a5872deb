from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from pydantic import ValidationError

from banditmesh.bandits.rewards import Outcome, Reaction, RewardSpec
from banditmesh.reactions import KINDS

CLICK, MUTE, PURCHASE = Reaction("click"), Reaction("mute"), Reaction("target", "purchase")


def test_the_default_rewards_are_the_published_ones() -> None:
    spec = RewardSpec()
    assert spec.outcome([CLICK]) == Outcome("click", 1.0)
    assert spec.outcome([]) == Outcome("none", 0.5)
    assert spec.outcome([MUTE]) == Outcome("mute", 0.0)


@pytest.mark.parametrize(
    ("precedence", "kind", "reward"),
    [(["mute", "target", "click"], "mute", 0.0), (["target", "click", "mute"], "target", 3.0), (["click"], "click", 1)],
)
def test_the_strongest_reaction_counts_in_whatever_order_they_came(
    precedence: list[str], kind: str, reward: float
) -> None:
    spec = RewardSpec.model_validate({"targets": {"purchase": 3.0}, "precedence": precedence})
    for reactions in permutations([CLICK, MUTE, PURCHASE, CLICK]):
        outcome = spec.outcome(reactions)
        assert (outcome.kind, outcome.reward) == (kind, reward)


def test_kinds_that_a_precedence_leaves_out_follow_in_their_own_order() -> None:
    spec = RewardSpec(precedence=("click", "mute"))
    assert spec.precedence == ("click", "mute", *(kind for kind in KINDS if kind not in ("click", "mute")))


def test_of_several_target_actions_the_best_paid_counts_with_its_weight() -> None:
    spec = RewardSpec(targets={"subscribe": 2.0, "purchase": 3.0})
    assert spec.outcome([PURCHASE, Reaction("target", "subscribe", 2.0)]) == Outcome("target", 4.0, "subscribe")
    assert spec.outcome([PURCHASE, Reaction("target", "subscribe", 1.5)]) == Outcome("target", 3.0, "purchase")


def test_a_target_action_that_is_not_configured_is_passed_over() -> None:
    assert RewardSpec().outcome([PURCHASE]) == Outcome("none", 0.5)
    assert RewardSpec().outcome([PURCHASE, CLICK]) == Outcome("click", 1.0)


def test_a_reward_beyond_the_cap_is_clipped_and_says_so() -> None:
    spec = RewardSpec(targets={"purchase": 3.0})
    assert spec.outcome([Reaction("target", "purchase", 10.0)]) == Outcome("target", 30.0, "purchase")
    assert spec.outcome([Reaction("target", "purchase", 1e6)]) == Outcome("target", 30.0, "purchase", clipped=True)
    capped = RewardSpec(targets={"purchase": 3.0}, cap=5.0)
    assert capped.outcome([Reaction("target", "purchase", 2.0)]) == Outcome("target", 5.0, "purchase", clipped=True)


def test_a_negative_reward_is_clipped_at_the_other_side() -> None:
    spec = RewardSpec(targets={"refund": -1.0})
    assert spec.outcome([Reaction("target", "refund", 1e6)]) == Outcome("target", -10.0, "refund", clipped=True)


@pytest.mark.parametrize(
    ("given", "reachable"),
    [
        ({}, (0.0, 1.0)),
        ({"mute": -0.5}, (-0.5, 1.0)),
        ({"targets": {"purchase": 3.0}}, (0.0, 30.0)),
        ({"targets": {"purchase": 1.0}, "cap": 1.0}, (0.0, 1.0)),
        ({"targets": {"refund": -1.0}}, (-10.0, 1.0)),
    ],
)
def test_the_range_of_rewards_is_known_beforehand(given: dict[str, Any], reachable: tuple[float, float]) -> None:
    assert RewardSpec.model_validate(given).range() == reachable


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("click", {"click": float("nan")}),
        ("targets", {"targets": {"": 1.0}}),
        ("targets", {"targets": {"x" * 65: 1.0}}),
        ("targets", {"targets": {"purchase": float("inf")}}),
        ("precedence", {"precedence": ["mute", "click", "click"]}),
        ("precedence", {"precedence": ["mute", "click", "like"]}),
        ("cap", {"cap": -1.0}),
        ("clicks", {"clicks": 1.0}),
    ],
)
def test_what_is_wrong_is_named(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        RewardSpec.model_validate(given)
    assert refused.value.errors()[0]["loc"][0] == field


def test_a_cap_below_a_configured_reward_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"cap is 2, below a reward that stands here, 3"):
        RewardSpec(targets={"purchase": 3.0}, cap=2.0)
