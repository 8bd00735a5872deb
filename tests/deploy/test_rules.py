"""Alert rules and dashboards: each alert fires when it should, and only then."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.tools import CHART, promtool
from tools import dashboards

RULES = CHART / "files" / "rules.yaml"
TESTS = Path(__file__).with_name("rules_test.yaml")


def alerts() -> list[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]


def test_each_alert_has_a_firing_and_a_silent_series() -> None:
    tests = {each["name"]: each for each in yaml.safe_load(TESTS.read_text())["tests"]}
    assert list(tests) == alerts()
    for name, each in tests.items():
        meshes = {re.findall(r'mesh="(\w+)"', series["series"])[0] for series in each["input_series"]}
        assert meshes == {"good", "bad"}, name
        (sample,) = each["promql_expr_test"][0]["exp_samples"]
        assert 'mesh="bad"' in sample["labels"]


@pytest.mark.timeout(400)  # the first time it fetches promtool
def test_promtool_finds_that_each_alert_fires_and_stays_silent(tmp_path: Path) -> None:
    for path in (RULES, TESTS):
        shutil.copy(path, tmp_path)
    for words in (["check", "rules", "--lint-fatal", RULES.name], ["test", "rules", TESTS.name]):
        done = subprocess.run([str(promtool()), *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_are_what_grafana_takes() -> None:
    for path, text in dashboards.written().items():
        assert path.read_text() == text, "run: make chart"
    found = sorted((CHART / "files" / "dashboards").glob("*.json"))
    assert [path.stem for path in found] == ["engine", "imports", "learning", "overview", "stream"]
    uids = set()
    for path in found:
        board = json.loads(path.read_text())
        uids.add(board["uid"])
        assert {"title", "panels", "schemaVersion", "templating"} <= board.keys()
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers)
        assert all(target["expr"] for panel in board["panels"] for target in panel["targets"])
    assert len(uids) == len(found)
