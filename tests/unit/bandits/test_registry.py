from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from banditmesh.bandits import registry
from banditmesh.bandits.errors import InvalidParams, InvalidTensors, UnknownName
from banditmesh.bandits.exploration.ucb import Ucb
from banditmesh.bandits.linucb import Linucb, LinucbParams

KNOWN = ", ".join(sorted(registry.POLICIES))


def test_a_policy_is_built_by_name_with_its_parameters() -> None:
    policy = registry.build("linucb", {"arm": "logic", "dimension": 8})
    assert isinstance(policy, Linucb)
    assert policy.params == LinucbParams(arm="logic", dimension=8)
    assert registry.build("popularity").params == registry.policy_params("popularity")


def test_an_exploration_is_built_by_name_with_its_parameters() -> None:
    assert registry.build_exploration("ucb", {"alpha": 0.5, "floor": 0.01}) == Ucb(alpha=0.5, floor=0.01)


@pytest.mark.parametrize(
    ("attempt", "field"),
    [
        (lambda: registry.build_exploration("ucb", {"alpha": 1e308}), "ucb.alpha"),
        (lambda: registry.build("popularity", {"prior_reward": -1e13}), "popularity.prior_reward"),
    ],
)
def test_a_number_that_scores_could_not_hold_is_refused(attempt: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidParams, match=r"must be from -1e\+12 to 1e\+12") as refused:
        attempt()
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "linucp",
            f"no policy is called 'linucp', did you mean 'linucb'? known: {KNOWN}",
        ),
        ("xyz", f"no policy is called 'xyz'; known: {KNOWN}"),
    ],
)
def test_an_unknown_policy_is_named_and_the_known_ones_listed(name: str, says: str) -> None:
    for attempt in (registry.build, registry.model_name):
        with pytest.raises(UnknownName) as refused:
            attempt(name)
        assert says in str(refused.value)
        assert (refused.value.field, refused.value.value) == ("policy", name)


def test_an_unknown_exploration_is_named() -> None:
    with pytest.raises(UnknownName, match="no exploration is called 'tompson', did you mean 'thompson'"):
        registry.build_exploration("tompson")


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"dimensions": 8}, "linucb.dimensions", "no parameter 'dimensions', did you mean 'dimension'? known: arm,"),
        ({"dimension": 1}, "linucb.dimension", "greater than or equal to 2, got 1"),
        ({"ridge": float("nan")}, "linucb.ridge", "finite number, got nan"),
        ({"arm": "user"}, "linucb.arm", "'content', 'logic' or 'service', got 'user'"),
    ],
)
def test_a_wrong_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        registry.build("linucb", params)
    assert refused.value.field == field
    assert says in str(refused.value)


def test_a_parameter_of_an_exploration_is_named() -> None:
    with pytest.raises(InvalidParams, match=r"ucb\.alfa: ucb has no parameter 'alfa', did you mean 'alpha'"):
        registry.build_exploration("ucb", {"alfa": 1})
    with pytest.raises(InvalidParams, match=r"greedy\.floor: .*less than or equal to 1, got 2"):
        registry.build_exploration("greedy", {"floor": 2})


def test_models_are_named_by_policy_and_canonical_parameters() -> None:
    assert registry.model_name("linucb", {"dimension": 32, "arm": "content"}) == registry.model_name("linucb")
    assert registry.model_name("linucb", {"arm": "logic"}) != registry.model_name("linucb")


def test_model_names_are_what_they_always_were() -> None:
    assert registry.model_name("linucb") == "linucb-e15f57b0"
    assert registry.model_name("random") == "random-44136fa3"


def test_a_snapshot_is_loaded_by_name() -> None:
    policy = registry.build("linucb", {"dimension": 4})
    loaded = registry.load("linucb", {"dimension": 4}, policy.tensors())
    assert loaded.params == policy.params
    with pytest.raises(InvalidTensors, match="precision"):
        registry.load("linucb", {"dimension": 5}, policy.tensors())
    with pytest.raises(InvalidTensors, match="arms: is missing; there are: none"):
        registry.load("linucb", {}, {})


def test_every_parameter_says_what_it_means() -> None:
    models = [policy.Params for policy in registry.POLICIES.values()]
    for model in [*models, *registry.EXPLORATIONS.values()]:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda: registry.policy_params("linucb", {"ridge": True}), "linucb.ridge"),
        (lambda: registry.policy_params("blend", {"popular": {"prior_reward": False}}), "blend.popular.prior_reward"),
        (lambda: registry.build_exploration("ucb", {"floor": True}), "ucb.floor"),
    ],
)
def test_a_truth_value_is_no_number(wrong: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidParams, match="YAML reads yes, on, no, off") as refused:
        wrong()
    assert refused.value.field == field


def test_a_number_within_a_section_has_the_same_bounds() -> None:
    with pytest.raises(InvalidParams, match=r"must be from -1e\+12 to 1e\+12") as refused:
        registry.policy_params("blend", {"popular": {"prior_reward": 1e300}})
    assert refused.value.field == "blend.popular.prior_reward"


@pytest.mark.parametrize(
    ("dense", "says"),
    [
        (["x0..x999999999999"], "at most 256"),
        (["x0..x9"] * 1000, "at most 256"),
        (["x9..x0"], "counts down"),
    ],
)
def test_a_range_of_fields_is_not_written_out_beyond_what_is_accepted(dense: list[str], says: str) -> None:
    with pytest.raises(InvalidParams, match=says):
        registry.build("linucb", {"dense": dense})
