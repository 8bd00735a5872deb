from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from pydantic import ValidationError

from banditmesh.bandits.rewards import Outcome, Reaction, RewardSpec

CLICK, MUTE, PURCHASE = Reaction("click"), Reaction("mute"), Reaction("target", "purchase")


def test_the_default_rewards_are_the_published_ones() -> None:
    spec = RewardSpec()
    assert spec.outcome([CLICK]) == Outcome("click", 1.0)
    assert spec.outcome([]) == Outcome("none", 0.5)
    assert spec.outcome([MUTE]) == Outcome("mute", 0.0)


@pytest.mark.parametrize(
    ("precedence", "kind", "reward"),
    [(["mute", "target", "click"], "mute", 0.0), (["target", "click", "mute"], "target", 3.0)],
)
def test_the_strongest_reaction_counts_in_whatever_order_they_came(
    precedence: list[str], kind: str, reward: float
) -> None:
    spec = RewardSpec.model_validate({"targets": {"purchase": 3.0}, "precedence": precedence})
    for reactions in permutations([CLICK, MUTE, PURCHASE, CLICK]):
        outcome = spec.outcome(reactions)
        assert (outcome.kind, outcome.reward) == (kind, reward)


def test_of_several_target_actions_the_best_paid_counts_with_its_weight() -> None:
    spec = RewardSpec(targets={"subscribe": 2.0, "purchase": 3.0})
    assert spec.outcome([PURCHASE, Reaction("target", "subscribe", 2.0)]) == Outcome("target", 4.0, "subscribe")
    assert spec.outcome([PURCHASE, Reaction("target", "subscribe", 1.5)]) == Outcome("target", 3.0, "purchase")


def test_a_target_action_that_is_not_configured_is_passed_over() -> None:
    assert RewardSpec().outcome([PURCHASE]) == Outcome("none", 0.5)
    assert RewardSpec().outcome([PURCHASE, CLICK]) == Outcome("click", 1.0)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("click", {"click": float("nan")}),
        ("targets", {"targets": {"": 1.0}}),
        ("targets", {"targets": {"purchase": float("inf")}}),
        ("precedence", {"precedence": ["mute", "click"]}),
        ("precedence", {"precedence": ["mute", "click", "click"]}),
        ("precedence", {"precedence": ["mute", "click", "like"]}),
        ("clicks", {"clicks": 1.0}),
    ],
)
def test_what_is_wrong_is_named(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        RewardSpec.model_validate(given)
    assert refused.value.errors()[0]["loc"][0] == field
