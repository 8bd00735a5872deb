from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from banditmesh.cli import app
from banditmesh.runtime.errors import InvalidArgument


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    rows = [{"candidates": [{"id": str(n % 7)}], "reward": float(n % 7 < 3)} for n in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["fit", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_has_the_quality_on_the_test_log(log: Path) -> None:
    told = json.loads(run(log, "--policy", "linear", "--test", log, "--epochs", 2, "--json"))
    assert told["test"]["auc"] == 1.0
    assert told["test"]["rows"] == told["examples"] == 300
    assert told["epochs"] == 2


def test_the_table_shows_held_out_and_test(log: Path) -> None:
    told = run(log, "--policy", "linear", "--test", log, "--valid", log, "--epochs", 2)
    assert "held out" in told
    assert "test" in told
    assert 'policy: {"linear": ' in told


def test_save_says_where_the_model_is(log: Path, tmp_path: Path) -> None:
    told = json.loads(run(log, "--policy", "linucb", "--save", tmp_path / "store", "--placement", "home", "--json"))
    assert told["saved"] == {"store": (tmp_path / "store").as_uri(), "placement": "home", "version": 1}
    assert (tmp_path / "store" / "models" / "home" / told["model"] / "00000001" / "manifest.json").is_file()


def test_a_placement_that_is_no_name_is_refused_before_the_work(log: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="placement"):
        run(log, "--policy", "linear", "--save", tmp_path, "--placement", "../up")


def test_a_reward_that_the_link_cannot_give_is_no_traceback(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "stars"
    path.write_text('{"candidates": [{"id": "a"}], "reward": 5}\n')
    with pytest.raises(InvalidArgument, match="rewards"):
        run(path, "--policy", "linear:link=logit", "--epochs", 1)
