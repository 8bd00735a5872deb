"""What rules did, as rows of a log say it, and a policy judged without one of them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.reader import batches
from banditmesh.decisions.row import parse as parse_row
from banditmesh.decisions.spec import parse
from banditmesh.replay.judgement import judge
from banditmesh.replay.of_mesh import spool
from banditmesh.runtime.errors import InvalidArgument
from banditmesh.runtime.store import open_store
from tests.support.decisions import NOON, archive
from tests.support.decisions import rows as archived

CLICKS = np.array([0.2, 0.6])
SOFTMAX = "random:explore=softmax,temperature=1"


def row(rng: np.random.Generator, *effects: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Of a and b, shown with even chances."""
    shown = int(rng.integers(2))
    return {
        "candidates": [{"id": "a"}, {"id": "b"}],
        "shown": shown,
        "propensity": 0.5,
        "reward": float(rng.random() < CLICKS[shown]),
        "rules": list(effects),
        **more,
    }


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_shifts_are_in_force_but_those_of_the_rule_that_is_left_out(tmp_path: Path) -> None:
    """By softmax at temperature 1 a score that is 2 higher has e² times the odds; without the boost both are alike."""
    rng = np.random.default_rng(1)
    boost = {"rule": "boost", "shifts": [0.0, 2.0]}
    found = judge(written(tmp_path / "log", [row(rng, boost) for _ in range(600)]), parse(SOFTMAX), without=["boost"])
    share = np.e**2 / (1 + np.e**2)
    assert found.support.largest == pytest.approx(2 * share, rel=1e-5)
    lower, upper = found.metrics["reward"].best.interval
    assert lower <= 0.2 * (1 - share) + 0.6 * share <= upper
    without = found.without["boost"]
    assert without.support.largest == pytest.approx(1)
    lower, upper = without.metrics["reward"].best.interval
    assert lower <= 0.4 <= upper
    assert found.warnings == without.warnings == ()
    assert without.gain is not None
    assert without.gain.moved == pytest.approx(share - 0.5, rel=1e-5)
    assert without.gain.told == pytest.approx(1, abs=0.1)
    cost = without.gain.estimates["reward"].interval
    assert cost.lower <= (0.6 - 0.2) * (0.5 - share) <= cost.upper < 0
    assert cost.width < without.metrics["reward"].best.interval.width


def test_who_could_only_be_there_without_a_rule_gets_a_share_and_who_could_not_gets_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    quota = {"rule": "quota", "adds": [2], "drops": [1]}  # without it another rule bars b, and c may come
    rows = [row(rng, quota, barred=[{"id": "c"}]) for _ in range(200)]
    without = judge(written(tmp_path / "log", rows), parse("random"), without=["quota"]).without["quota"]
    assert without.support.mean_weight == pytest.approx(0.5, abs=0.1)  # a alone, with half of the chances
    assert without.never_shown == pytest.approx(0.5)
    assert "50% of what the policy would show are contents that the log never showed" in without.warnings[0]
    assert without.gain is not None
    assert without.gain.estimates["reward"].name == "bounds"
    assert without.gain.estimates["reward"].interval.width > without.gain.moved
    assert any("of what the rule moves" in each for each in without.warnings)


def test_a_rule_that_no_decision_speaks_of_is_warned_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    found = judge(written(tmp_path / "log", [row(rng) for _ in range(120)]), parse("random"), without=["pin"])
    assert found.without["pin"].warnings == (
        "pin did nothing in any decision of the log: it never mattered, or was not in force yet",
    )
    assert found.without["pin"].metrics["reward"].best == found.metrics["reward"].best
    assert found.without["pin"].gain is not None
    assert found.without["pin"].gain.estimates["reward"].interval == (0, 0)


def test_a_log_that_does_not_say_what_rules_did_cannot_answer(tmp_path: Path) -> None:
    log = written(tmp_path / "log", [row(np.random.default_rng(4), rules=None)])
    assert judge(log, parse("random")).rows == 1
    with pytest.raises(InvalidArgument, match=r"log:1: does not say what rules did.* without pin"):
        judge(log, parse("random"), without=["pin"])


async def test_files_of_older_engines_do_not_hide_what_newer_ones_said(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    older, newer = archived(np.random.default_rng(6), 2)
    effect = {"rule": "boost", "shifts": [0.0, 0.0, 0.4, 0.0]}
    await archive(store, "home", [older])
    await archive(store, "home", [{**newer, "rules": [effect]}], first=1)
    path = tmp_path / "log.parquet"
    assert await spool(store, "home", NOON, NOON + timedelta(hours=1), path) == 2
    ((silent, told),) = batches(path, ruled=True)
    assert silent.ruled is None
    assert told.ruled is not None
    assert [each.rule for each in told.ruled.effects] == ["boost"]
    assert told.ruled.effects[0].shifts == pytest.approx([0.0, 0.0, 0.4, 0.0])


async def test_what_a_newer_release_has_archived_of_its_own_kinds_of_reaction_is_passed_over(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    known, newer = archived(np.random.default_rng(7), 2)
    await archive(store, "home", [{**known, "reactions": ["click"]}, {**newer, "reactions": ["applause", "mute"]}])
    path = tmp_path / "log.parquet"
    await spool(store, "home", NOON, NOON + timedelta(hours=1), path)
    ((first, second),) = batches(path)
    assert (first.reactions, second.reactions) == (["click"], ["mute"])


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"rules": {}}, "rules"),
        ({"rules": [{"rule": 3}]}, "rules[0].rule"),
        ({"rules": [{"rule": "pin", "adds": [2]}]}, "rules[0].adds"),
        ({"rules": [{"rule": "pin", "drops": ["a"]}]}, "rules[0].drops"),
        ({"rules": [{"rule": "boost", "shifts": [0.1]}]}, "rules[0].shifts"),
        ({"barred": "c"}, "barred"),
        ({"shown": 2, "barred": [{"id": "c"}]}, "shown"),
        ({"barred": [{"id": "a"}]}, "candidates[2].id"),
    ],
)
def test_what_is_wrong_with_it_is_named(more: dict[str, Any], field: str) -> None:
    broken = row(np.random.default_rng(5), **more)
    with pytest.raises(BrokenRow) as raised:
        parse_row(broken, 1, "log:1", ruled=True)
    assert raised.value.field == field
