"""``banditmesh check``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from banditmesh.cli.grpcurl import QUICKSTART

Run = Callable[..., Any]
VALID = (QUICKSTART / "mesh.yaml").read_text()


def test_a_valid_file_is_shown_variant_by_variant(run: Run) -> None:
    ended = run("check", QUICKSTART / "mesh.yaml")
    assert ended.code == 0
    assert "mesh.yaml is valid; services: 3, placements: 1" in ended.out
    learned = next(line for line in ended.out.splitlines() if "learned" in line)
    assert "90.0%" in learned
    assert "linucb" in learned
    assert "ucb" in learned


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        (
            "slot_for: 1m",
            "slott_for: 1m",
            "talk-head-jp.mute.slott_for: unknown key; did you mean 'slot_for'?",
        ),
        ("{linucb:", "{linucp:", "variants.learned.policy.linucp: does not exist; did you mean 'linucb'?"),
        ("slot_for: 1m", "slot_for: 60", "has no unit; write it like 250ms"),
        ("click: 1.0", "click: 1e308", "rewards.click: must be from -1e+06 to 1e+06"),
        ("purchase: 3.0", "purchase: -1e7", "rewards.targets: purchase: must be from -1e+06 to 1e+06"),
        (
            "features: {profile: [gender, age_band], content: [service], context: [hour, weekday], "
            "crosses: [[age_band, service]]",
            "features: {profile: [likes], content: [genres, tags], multi_valued: {likes: 16, genres: 16, tags: 16}, "
            "crosses: [[likes, genres], [likes, tags]]",
            "talk-head-jp.features: 560 features a decision make impression tokens of up to",
        ),
        ("coupons/nearby]", "coupons/near]", "'coupons/near' is no service/logic; did you mean 'coupons/nearby'?"),
    ],
)
def test_a_wrong_key_or_value_ends_it_with_2_and_its_name(
    run: Run, tmp_path: Path, right: str, wrong: str, says: str
) -> None:
    config = tmp_path / "mesh.yaml"
    config.write_text(VALID.replace(right, wrong))
    ended = run("check", config)
    assert ended.code == 2
    assert says in ended.err
    assert ended.out == ""


def test_all_mistakes_are_named_together(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "mesh.yaml"
    config.write_text(VALID.replace("slot_for", "slott_for").replace("{linucb:", "{linucp:"))
    assert run("check", config).err.count("did you mean") == 2


def test_a_file_that_is_not_there_ends_it_with_2(run: Run, tmp_path: Path) -> None:
    ended = run("check", tmp_path / "none.yaml")
    assert ended.code == 2
    assert "none.yaml: cannot be read" in ended.err


def test_who_may_call_what_is_shown_and_that_it_is_everybody_is_said(run: Run, tmp_path: Path) -> None:
    assert "whoever reaches a port may call everything" in run("check", QUICKSTART / "mesh.yaml").out
    config = tmp_path / "mesh.yaml"
    config.write_text(f'{VALID}access: {{callers: {{team: {{roles: ["service:weather"], dns: [team.example]}}}}}}\n')
    shown = run("check", config).out
    assert "everything" not in shown
    (line,) = [line for line in shown.splitlines() if "team" in line]
    assert "service:weather" in line
    assert "dns" in line


def test_many_variants_are_a_line_each_for_other_tools(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    slots = "".join(f"  slot-{n}: {{sources: [weather/today]}}\n" for n in range(501))
    file.write_text("services: {weather: {logics: [today]}}\nplacements:\n" + slots)
    ended = run("check", file)
    assert ended.code == 0
    lines = [line.split("\t") for line in ended.out.splitlines() if "\t" in line]
    assert lines[0] == ["placement", "variant", "share", "policy", "model", "exploration"]
    assert [line[0] for line in lines[1:]] == [f"slot-{n}" for n in range(501)]
