"""Ranked lists in `replay` and `evaluate`: the values are obp's, and the truth lies within the intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from banditmesh.decisions.spec import parse
from banditmesh.replay.judgement import Judgement, judge
from banditmesh.replay.judgement_report import report
from banditmesh.replay.replay import Options, replay
from banditmesh.replay.report import report as replay_report
from banditmesh.replay.targets import column
from tests.support.decisions import shown_list
from tests.unit.ope.test_lists import OF_OBP
from tests.unit.ope.test_slates import GOLDEN


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_replay_judges_lists_as_obp_does(tmp_path: Path) -> None:
    rows = [
        {
            "list": int(number) // 3,
            "position": number % 3,
            "candidates": [{"id": "a"}, {"id": "b"}],
            "shown": 0,
            "reward": float(GOLDEN.rewards[number]),
            "propensity": float(GOLDEN.propensities[number]),
            "policy": float(GOLDEN.targets[number]),
        }
        for number in range(60)
    ]
    log = written(tmp_path / "log.jsonl", rows)
    _, ((run,),) = replay(log, [column("policy")], Options(method="ips"))
    said = replay_report([run])["lists"]
    assert said["lists"] == 20
    for assumption, value in OF_OBP.items():
        assert said["metrics"]["reward"][assumption]["value"] == pytest.approx(value, abs=1e-6)


@pytest.fixture(scope="module")
def of_chance(tmp_path_factory: pytest.TempPathFactory) -> Judgement:
    rng = np.random.default_rng(8)
    rows = [row for number in range(500) for row in shown_list(rng, number, length=2)]
    return judge(written(tmp_path_factory.mktemp("lists") / "log.jsonl", rows), parse("random"))


def test_evaluate_says_what_whole_lists_would_have_earned(of_chance: Judgement) -> None:
    lists = of_chance.lists
    assert lists is not None
    assert (lists.lists, lists.mean_length, lists.left_out) == (500, 2, 0)
    # Of two that are drawn uniformly each position has the mean of all.
    for metric, each in (("click_rate", 0.3 * 0.75), ("mute_rate", 0.085)):
        for assumption in ("cascade", "standard"):
            lower, upper = lists.estimates[metric][assumption].interval
            assert lower <= 2 * each <= upper, (metric, assumption)
    said = report(of_chance)["lists"]["metrics"]["click_rate"]
    assert said["logged"] < said["cascade"]["value"]


def test_a_log_of_single_contents_has_no_lists(tmp_path: Path) -> None:
    rows = [shown_list(np.random.default_rng(8), number, length=1)[0] for number in range(40)]
    found = judge(written(tmp_path / "log.jsonl", rows), parse("random"))
    assert found.lists is None
    assert report(found)["lists"] is None
