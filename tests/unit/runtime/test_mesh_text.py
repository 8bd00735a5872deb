"""mesh.yaml as a text: what no parser gets through, what is large, and what it costs to validate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import pytest

from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import load_mesh, parse_mesh

from .test_mesh import EXAMPLE, MINIMAL, problems


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: " + "[" * 5000, "nested too deeply"),
        (
            MINIMAL.replace("sources: [weather/today]", r'experiment: {variants: {a: {weight: 1, policy: "\ud800"}}}'),
            "ud800",
        ),
    ],
    ids=["deep", "no character"],
)
def test_a_text_that_no_parser_gets_through_is_wrong_and_no_bug(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_mesh(text)


def test_what_is_said_of_a_huge_file_is_small() -> None:
    found = problems(MINIMAL + f"join: {{window: {'x' * 100_000}}}\n" + "".join(f"key{n}: 1\n" for n in range(5000)))
    assert found[-1] == "and 4901 more"
    assert max(map(len, found)) < 1100


def many(kind: str, count: int) -> str:
    """So many services and so many placements."""
    services = "".join(f"  s{n}: {{logics: [today, other-{n}]}}\n" for n in range(count))
    body = {
        "valid": "sources: [s{n}/today]",
        "wrong sources": "sources: [s{n}/tody]",
        "wrong services": "retrieve: {{from: [sx{n}], newest: {{share: 9}}}}",
        "wrong rules": "sources: [s{n}/today], rules: [{{boost: {{of: {{service: sx{n}}}, by: 1.0}}}}]",
        "unknown keys": "sources: [s{n}/today], rewrads: {{}}",
        "one layer": "sources: [s{n}/today], experiment: {{layer: {{name: all, users: [0.1, 0.2]}}, variants: "
        "{{a: {{weight: 1, policy: popularity}}}}}}",
    }[kind]
    return f"services:\n{services}placements:\n" + "".join(f"  p{n}: {{{body.format(n=n)}}}\n" for n in range(count))


def calls_of(text: str) -> int:
    """How many functions are called to validate it."""

    def validate() -> None:
        with suppress(ConfigurationError):
            parse_mesh(text)

    return calls_in(validate)


def calls_in(work: Callable[[], object]) -> int:
    """How many functions it calls."""
    called = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal called
        called += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return called


@pytest.mark.parametrize(
    "kind", ["valid", "wrong sources", "wrong services", "wrong rules", "unknown keys", "one layer"]
)
def test_the_work_grows_with_the_file_and_not_with_its_square(kind: str) -> None:
    parse_or_refuse = calls_of(many(kind, 8))  # what is kept from the first time on
    few, lots = calls_of(many(kind, 150)), calls_of(many(kind, 600))
    assert parse_or_refuse < few
    assert lots < 4.8 * few


def test_of_placements_that_overlap_in_a_layer_each_but_the_first_is_named() -> None:
    found = problems(many("one layer", 5))
    assert [line.split(": ")[0] for line in found] == [f"placements.p{n}.experiment.layer.users" for n in range(1, 5)]
    assert all("overlaps with placement 'p0'" in line for line in found)


@pytest.mark.parametrize(
    "text",
    ["[" * 300_000, "- " * 300_000 + "a", "{a: " * 300_000, "\n".join(" " * n + "a:" for n in range(3000))],
    ids=["lists", "dashes", "mappings", "indented"],
)
def test_nesting_is_refused_before_it_reaches_the_end_of_the_stack(text: str) -> None:
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        parse_mesh(text)


def test_where_a_file_is_no_yaml_its_line_is_shown() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_mesh("services: {}\nplacements: a: b\nengine: {}\n")
    assert "placements: a: b" in str(refused.value)
    assert "line 2, column 14" in str(refused.value)


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigurationError, match="more than 16 MiB"):
        load_mesh("/dev/zero")


def test_a_text_is_validated_once_so_that_a_service_that_follows_it_need_not_do_so_between_its_calls() -> None:
    mesh = parse_mesh(MINIMAL, origin="mesh.yaml")
    assert parse_mesh(MINIMAL, origin="mesh.yaml") is mesh
    with pytest.raises(ConfigurationError, match=r"^other\.yaml is not valid"):
        parse_mesh("services: {}\nplacements: {}\n", origin="other.yaml")


def test_models_are_worked_out_once_and_say_nothing_of_equality() -> None:
    """The joiner asks by them for each partition that it is given."""
    mesh, same = parse_mesh(EXAMPLE, origin="one"), parse_mesh(EXAMPLE, origin="another")
    assert mesh.models() is mesh.models()
    assert mesh == same
    few = calls_in(mesh.remembers)
    assert few < calls_in(same.remembers)
