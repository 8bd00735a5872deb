from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from banditmesh.cli.commands import app
from banditmesh.replay.compared import COMPARED, recommended
from banditmesh.runtime.errors import InvalidArgument


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    rows = [
        {"candidates": [{"id": "a"}, {"id": "b"}], "shown": n % 2, "reward": n % 2, "propensity": 0.5}
        for n in range(200)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["replay", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_is_one_object_with_a_part_for_each_policy(log: Path) -> None:
    told = json.loads(run(log, "--policy", "random", "--policy", "linucb:alpha=0.1", "--seeds", 2, "--json"))
    assert told["method"] == "rejection"
    assert [each["policy"] for each in told["policies"]] == ["random", "linucb:alpha=0.1"]
    for each in told["policies"]:
        assert len(each["seeds"]) == 2
        assert each["interval"][0] <= each["reward"] <= each["interval"][1]
        assert each["curve"][-1] == [each["seeds"][0]["matches"], pytest.approx(each["seeds"][0]["reward"])]


WITHOUT_MODEL = "ips clipped_ips snips bounds"
ALL = f"dr mrdr dm switch dros {WITHOUT_MODEL}"


@pytest.mark.parametrize(
    ("method", "names"), [("ips", WITHOUT_MODEL), ("snips", WITHOUT_MODEL), ("bounds", WITHOUT_MODEL), ("dr", ALL)]
)
def test_off_policy_methods_show_all_estimators(log: Path, method: str, names: str) -> None:
    (found,) = json.loads(run(log, "--policy", "random", "--method", method, "--json"))["policies"]
    assert list(found["estimators"]) == names.split()
    assert found["reward"] == pytest.approx(found["estimators"][method]["value"])
    assert found["estimator"] == method
    for estimate in found["estimators"].values():
        assert estimate["interval"][0] <= estimate["value"] <= estimate["interval"][1]
    assert found["mean_weight"] == found["support"]["mean_weight"] == pytest.approx(1)
    assert found["support"]["effective_rows"] == pytest.approx(200)
    assert found["warnings"] == []


def test_auto_names_the_estimator_that_it_took(log: Path) -> None:
    (found,) = json.loads(run(log, "--policy", "random", "--method", "auto", "--json"))["policies"]
    assert found["reward"] == found["estimators"][found["estimator"]]["value"]


@pytest.fixture
def one_arm(tmp_path: Path) -> Path:
    """A log that always showed the first of ten arms."""
    path = tmp_path / "one-arm.jsonl"
    row = {"candidates": [{"id": str(arm)} for arm in range(10)], "shown": 0, "propensity": 1.0}
    path.write_text("".join(json.dumps({**row, "reward": n % 2}) + "\n" for n in range(300)))
    return path


def test_strict_ends_with_three_when_the_log_does_not_support_a_policy(log: Path, one_arm: Path) -> None:
    def code(path: Path, *options: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["replay", str(path), "--policy", "random", "--method", "auto", *options])
        return result.exit_code, result.stderr

    assert code(log, "--strict") == (0, "")
    assert code(one_arm)[0] == 0
    assert code(one_arm, "--strict")[0] == 3
    assert "random: 90% of what the policy would show" in code(one_arm, "--strict")[1]


def test_seeds_widen_an_off_policy_interval(log: Path) -> None:
    told = [
        json.loads(run(log, "--policy", "fm", "--method", "snips", "--seeds", seeds, "--json"))["policies"][0]
        for seeds in (1, 3)
    ]
    assert len(told[1]["seeds"]) == 3
    assert told[1]["interval"][0] <= told[1]["reward"] <= told[1]["interval"][1]


def test_a_range_of_rewards_is_two_numbers(log: Path) -> None:
    for wrong in ("1", "1,0", "a,b", "0,inf"):
        with pytest.raises(InvalidArgument, match="two numbers"):
            run(log, "--policy", "random", "--method", "ips", "--reward-range", wrong)
    (found,) = json.loads(run(log, "--policy", "random", "--method", "ips", "--reward-range", "0,9", "--json"))[
        "policies"
    ]
    assert found["interval"][1] > 0.6


def test_too_few_rows_for_an_interval_are_null_in_json(log: Path) -> None:
    told = json.loads(run(log, "--policy", "random", "--limit-matches", 1, "--json"))
    assert told["policies"][0]["interval"] == [None, None]


def test_the_table_names_every_policy(log: Path) -> None:
    told = run(log, "--policy", "random", "--policy", "fm", "--method", "dr")
    assert "random" in told
    assert "mean weight" in told


def test_plot_draws_a_png(log: Path, tmp_path: Path) -> None:
    run(log, "--policy", "random", "--plot", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_is_refused_before_the_work(log: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="folder"):
        run(log, "--policy", "random", "--plot", tmp_path / "nowhere" / "curve.png")


def test_a_wrong_parameter_is_named(log: Path) -> None:
    with pytest.raises(InvalidArgument, match="alhpa"):
        run(log, "--policy", "linucb:alhpa=1")


def test_a_reward_that_the_link_cannot_give_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"candidates": [{"id": "a"}], "reward": 5}\n')
    with pytest.raises(InvalidArgument, match="rewards"):
        run(path, "--policy", "linear:link=logit")


def test_saved_models_and_columns_stand_beside_policies(tmp_path: Path) -> None:
    path = tmp_path / "log"
    row = {"candidates": [{"id": "a"}, {"id": "b"}], "propensity": 0.5, "new": [0.9, 0.1]}
    path.write_text("".join(json.dumps({**row, "shown": n % 2, "reward": n % 2}) + "\n" for n in range(200)))
    store = tmp_path / "store"
    result = CliRunner().invoke(app, ["fit", str(path), "--policy", "popularity", "--save", str(store)])
    assert result.exit_code == 0
    targets = ["--model", f"{store}::explore=greedy", "--target-column", "new"]
    told = json.loads(run(path, "--policy", "random", *targets, "--method", "snips", "--json"))["policies"]
    assert [each["reward"] for each in told] == [pytest.approx(0.5), pytest.approx(1.0), pytest.approx(0.1)]
    assert told[1]["policy"].startswith("default/popularity-")
    assert told[2]["policy"] == "column new"


def test_without_a_policy_a_small_set_is_compared_and_one_is_named(log: Path) -> None:
    told = json.loads(run(log, "--json"))
    assert [each["policy"] for each in told["policies"]] == list(COMPARED)
    best = max(told["policies"], key=lambda each: each["reward"])
    assert told["recommended"].startswith(f"I would take {best['policy']}: it has the highest reward")
    assert "I would take" in run(log)
    assert "I would take" not in run(log, "--policy", "random")


@pytest.mark.parametrize(
    ("interval", "said"), [([0.5, 0.9], "lies below its interval"), ([0.3, 1.1], "the log cannot tell them apart")]
)
def test_a_lead_within_the_interval_is_told_from_one_beyond_it(interval: list[float], said: str) -> None:
    reports = [
        {"policy": "b", "reward": 0.4, "interval": [0.3, 0.5]},
        {"policy": "a", "reward": 0.7, "interval": interval},
        {"policy": "c", "reward": None, "interval": [None, None]},
    ]
    assert recommended(reports).startswith("I would take a: ")
    assert said in recommended(reports)
    assert "too short" in recommended(reports[2:])
