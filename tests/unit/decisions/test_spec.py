from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from banditmesh.bandits.registry import DEFAULT, POLICIES
from banditmesh.decisions.row import Decision
from banditmesh.decisions.row import parse as parse_row
from banditmesh.decisions.spec import parse
from banditmesh.runtime.errors import InvalidArgument


def row(candidates: list[dict[str, Any]], context: dict[str, Any] | None = None) -> Decision:
    return parse_row({"candidates": candidates, "context": context, "shown": 0, "reward": 1}, 1, "log:1")


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_name_alone_is_a_policy_with_its_defaults(name: str) -> None:
    spec = parse(name)
    assert spec.build().name == name
    assert spec.exploration().floor == (0.01 if spec.explore == "ucb" or name == DEFAULT else 0)


def test_ucb_of_linucb_to_the_letter_has_no_floor_unless_told() -> None:
    assert parse("linucb:dense=x0..x9").exploration().floor == 0
    assert parse("linucb:dense=x0..x9,floor=0.02").exploration().floor == 0.02


def test_parameters_of_policy_and_exploration_stand_side_by_side() -> None:
    spec = parse("linucb:alpha=0.02,dense=x0..x9,ridge=2,floor=0.01")
    assert spec.params == {"dense": ["x0..x9"], "ridge": 2}
    assert (spec.explore, spec.explore_params) == ("ucb", {"alpha": 0.02, "floor": 0.01})
    assert spec.build().params.model_dump()["dense"] == tuple(f"x{n}" for n in range(10))


def test_lists_are_joined_by_plus() -> None:
    assert parse("linucb:dense=x0..x1+age").build().params.model_dump()["dense"] == ("x0", "x1", "age")
    assert parse("nfm:hidden=64+32").build().params.model_dump()["hidden"] == (64, 32)
    assert parse("nfm:hidden=64").build().params.model_dump()["hidden"] == (64,)


def test_a_number_may_have_an_exponent_or_be_null() -> None:
    assert parse("linear:ridge=1e-3,half_life=null").build().params.model_dump()["ridge"] == 0.001


@pytest.mark.parametrize(
    ("text", "explore"),
    [
        ("fm:epsilon=0.1", "epsilon_greedy"),
        ("fm:temperature=0.1", "softmax"),
        ("fm:alpha=1", "ucb"),
        ("fm", "squarecb"),
        ("fm:floor=0.1", "squarecb"),
        ("fm:scale=0.5", "thompson"),
        ("linear:gamma=10", "squarecb"),
        ("fm:explore=greedy,floor=0.1", "greedy"),
        ("linucb", "ucb"),
    ],
)
def test_the_exploration_is_named_or_follows_from_its_parameter(text: str, explore: str) -> None:
    assert parse(text).explore == explore


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("linucbb", "policy", "did you mean linucb"),
        ("linucb:alhpa=1", "alhpa", "did you mean alpha"),
        ("linucb:ridge=-1", "linucb.ridge", "greater than 0"),
        ("linucb:ridge", "ridge", "key=value"),
        ("linucb:ridge=1,ridge=2", "ridge", "stands twice"),
        ("linucb:explore=greedy,alpha=1", "greedy.alpha", "no parameter 'alpha'"),
        ("linucb:explore=usb", "exploration", "did you mean 'ucb'"),
        ("linear:user=maybe", "user", "boolean"),
        ("linear:cross=age", "cross.0.1", "required"),
        ("nothing.yaml", "policy", "no readable YAML"),
    ],
)
def test_a_wrong_spec_names_the_parameter(text: str, field: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(text)
    assert refused.value.field == field
    assert says in str(refused.value)
    assert text in str(refused.value)


def test_a_file_has_the_sections_of_mesh_yaml(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("policy: {linear: {ridge: 3}}\nexplore: {ucb: {alpha: 0.5}}\nfeatures: {cross: [[id, context]]}\n")
    spec = parse(str(path))
    assert (spec.policy, spec.params, spec.explore, spec.explore_params) == (
        "linear",
        {"ridge": 3},
        "ucb",
        {"alpha": 0.5},
    )
    assert spec.view([row([{"id": "a"}])]).cross == (("id", "context"),)


@pytest.mark.parametrize(
    ("text", "field"),
    [("explore: ucb", "policy"), ("policy: linear\nexplor: ucb", "explor"), ("policy: {linear: 3}", "policy")],
)
def test_a_wrong_file_names_the_section(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as refused:
        parse(str(path))
    assert refused.value.field == field


@pytest.mark.parametrize("policy", ["linear", "fm", "nfm"])
def test_ids_are_crossed_with_the_context_when_candidates_have_nothing_of_their_own(policy: str) -> None:
    bare = [{"id": "a"}, {"id": "b"}]
    assert parse(policy).view([row(bare)]).cross == (("id", "context"),)
    assert parse("linucb").view([row(bare)]).cross == ()


def test_the_context_is_crossed_with_what_candidates_have_of_their_own_unless_that_is_too_much() -> None:
    few = row([{"id": "a", "features": {"x": 1}}, {"id": "b"}], {"age": "20s", "hour": 3})
    assert parse("linear").view([few]).cross == (("age", "candidate"), ("hour", "candidate"))
    wide = [{"id": "a", "features": {f"x{n}": 1 for n in range(20)}}, {"id": "b"}]
    assert parse("linear").view([row(wide, context={f"c{n}": 1 for n in range(20)})]).cross == ()
    assert parse("linear:cross=id*age").view([few]).cross == (("id", "age"),)


def test_a_cross_of_what_no_row_has_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"cross names 'nosuch', which none of the log's first rows has"):
        parse("linear:cross=nosuch*context").view([row([{"id": "a"}, {"id": "b"}], context={"age": "20s"})])


def test_hashed_policies_see_the_user_and_linucb_does_not_unless_told() -> None:
    first = [row([{"id": "a"}])]
    assert parse("fm").view(first).user
    assert not parse("fm:user=false").view(first).user
    assert not parse("linucb").view(first).user


def test_a_dense_field_that_the_log_does_not_have_is_named() -> None:
    first = [row([{"id": "a", "features": {"x0": 1.0}}], {"x1": 2.0})]
    parse("linucb:dense=x0..x1").view(first)
    with pytest.raises(InvalidArgument, match="'x2'"):
        parse("linucb:dense=x0..x2").view(first)


@pytest.mark.parametrize("text", ["a\x1b[31m\nb", "linear:a\x1b[31m=1", "\u202elinear"])
def test_what_a_terminal_obeys_is_not_said_back_to_it(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(text)
    assert str(refused.value).isprintable()
