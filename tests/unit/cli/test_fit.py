from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from banditmesh.bandits.batch import Examples
from banditmesh.bandits.linear import Linear
from banditmesh.cli.commands import app
from banditmesh.fit.logs import checked
from banditmesh.runtime.errors import InvalidArgument, NotFound


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


def test_save_takes_the_address_of_a_store_as_other_commands_do(log: Path, tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    told = json.loads(run(log, "--policy", "linucb", "--save", store, "--json"))
    assert told["saved"]["store"] == store
    assert (tmp_path / "store" / "models" / "default" / told["model"] / "00000001" / "manifest.json").is_file()
    with pytest.raises(InvalidArgument, match="expected s3://bucket/prefix or file:///folder"):
        run(log, "--policy", "linucb", "--save", "gs://bucket/mesh")


def test_a_placement_that_is_no_name_is_refused_before_the_work(log: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="placement"):
        run(log, "--policy", "linear", "--save", tmp_path, "--placement", "../up")


def test_a_reward_that_the_link_cannot_give_is_no_traceback(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "stars"
    path.write_text('{"candidates": [{"id": "a"}], "reward": 5}\n')
    with pytest.raises(InvalidArgument, match="rewards"):
        run(path, "--policy", "linear:link=logit", "--epochs", 1)


def test_logs_to_measure_on_are_looked_at_before_the_work(log: Path, tmp_path: Path) -> None:
    """A fit would refuse the log's last row; that nobody comes to."""
    with log.open("a") as file:
        file.write("no row\n")
    (tmp_path / "broken").write_text('{"candidates": [{"id": "a"}], "label": 1}\n')
    (tmp_path / "empty").write_text("")
    for option in ("--valid", "--test"):
        for name, says in (("broken", "field reward; the row has candidates, label"), ("empty", "no rows")):
            with pytest.raises(InvalidArgument, match=f"{name}.*{says}"):
                run(log, "--policy", "linear", option, tmp_path / name)
        with pytest.raises(NotFound, match="nothing"):
            run(log, "--policy", "linear", option, tmp_path / "nothing")


def test_a_log_of_other_fields_is_refused_and_one_of_some_others_is_remarked_upon(tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("one", "two", "three")]
    for path, names in zip(logs, (["age", "lang"], ["years"], ["age", "language"]), strict=True):
        row = {"context": dict.fromkeys(names, "x"), "candidates": [{"id": "a"}], "reward": 1}
        path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InvalidArgument, match=r"has the fields years, and none of those of .*one: age, lang"):
        checked(logs[0], [logs[1]])
    assert checked(logs[0], [logs[0]]) == []
    (odd,) = checked(logs[0], [logs[2], logs[2]])
    assert "have language, which those of" in odd
    assert "lack lang of" in odd


def test_a_pipe_is_refused_for_it_cannot_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidArgument, match="is a pipe"):
        run(tmp_path / "pipe", "--policy", "linear")


def test_a_folder_that_cannot_take_the_model_is_refused_before_the_work(log: Path) -> None:
    for wrong in (log, log / "below"):
        with pytest.raises(InvalidArgument, match="no folder that can be written to"):
            run(log, "--policy", "linear", "--save", wrong)


def test_an_interrupted_fit_ends_with_130_and_saves_nothing(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = Linear.learn

    def interrupted(self: Linear, examples: Examples) -> None:
        learned(self, examples)
        raise KeyboardInterrupt

    monkeypatch.setattr(Linear, "learn", interrupted)
    result = CliRunner().invoke(
        app, ["fit", str(log), "--policy", "linear", "--save", str(tmp_path / "store")], catch_exceptions=False
    )
    assert result.exit_code == 130
    assert "Traceback" not in result.output
    assert not (tmp_path / "store").exists()
