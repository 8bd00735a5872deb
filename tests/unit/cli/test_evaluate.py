"""``banditmesh evaluate``, out of the archive of a store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from banditmesh.runtime.store import open_store
from tests.support.decisions import archive, rows, shown_list

Run = Callable[..., Any]
MESH = """
services: {press: {logics: [all]}}
placements:
  home:
    sources: [press/all]
    experiment: {variants: {chance: {weight: 1, policy: random}}}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mesh")
    (folder / "mesh.yaml").write_text(MESH)
    asyncio.run(archive(open_store((folder / "store").as_uri()), "home", rows(np.random.default_rng(1), 300)))
    return folder


def words(mesh: Path, *more: str | Path) -> list[str | Path]:
    span = ["--from", "2026-11-29T12:00:00Z", "--to", "2026-11-29T13:00:00Z"]
    config = ["--config", mesh / "mesh.yaml", "--store", (mesh / "store").as_uri()]
    return ["evaluate", "--placement", "home", *config, *span, *more]


def test_estimates_are_a_table_json_and_a_picture(run: Run, mesh: Path, tmp_path: Path) -> None:
    ended = run(*words(mesh, "--policy", "chance", "--plot", tmp_path / "plot.png"))
    assert ended.code == 0
    assert "chance (random), on 300 decisions" in ended.out
    assert "matched weight" in ended.out
    for metric in ("reward", "click_rate", "mute_rate"):
        assert metric in ended.out
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_variant_on_a_log_needs_the_store_for_its_model_and_says_so(
    run: Run, mesh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BANDITMESH_STORE", raising=False)
    logged = [{**row, "t": number} for number, row in enumerate(rows(np.random.default_rng(1), 3))]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, logged)))
    given = ["--log", tmp_path / "log.jsonl", "--config", mesh / "mesh.yaml"]
    ended = run("evaluate", "--placement", "home", *given, "--policy", "chance")
    assert ended.code == 2
    assert "chance is a variant of home in" in ended.err
    assert "or --log" not in ended.err


def test_a_policy_that_learns_is_judged_on_a_log_without_any_mesh(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    logged = [{**row, "t": number} for number, row in enumerate(rows(np.random.default_rng(1), 60))]
    Path("log.jsonl").write_text("\n".join(map(json.dumps, logged)))
    ended = run("evaluate", "--placement", "home", "--log", "log.jsonl", "--policy", "popularity", "--json", "--strict")
    assert ended.code == 3  # 60 rows are too few
    said = json.loads(ended.out)
    assert (said["rows"], list(said["metrics"])) == (60, ["reward", "click_rate", "mute_rate"])
    assert "of 60: the other rows say nothing" in ended.err


def test_ranked_lists_are_a_table_of_their_own_in_evaluate_and_in_replay(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    logged = [row for number in range(60) for row in shown_list(rng, number, length=3)]
    Path("log.jsonl").write_text("\n".join(map(json.dumps, logged)))
    ended = run("evaluate", "--placement", "home", "--log", "log.jsonl", "--policy", "random")
    assert "Of a whole list (60 lists, 3 positions each)" in ended.out
    ended = run("replay", "log.jsonl", "--policy", "random", "--method", "ips")
    assert "Reward of a whole list (60 lists, 3 positions each)" in ended.out
    for assumption in ("independence", "cascade", "standard"):
        assert assumption in ended.out


def test_without_a_rule_by_its_name_or_number_is_a_second_table(run: Run, tmp_path: Path) -> None:
    rules = "rules: [{boost: {of: {service: press}, by: 0.1}}, {boost: {of: {content: press/film}, by: 0.4}}]"
    (tmp_path / "mesh.yaml").write_text(MESH.replace("    experiment", f"    {rules}\n    experiment"))
    effect = {"rule": "boost_2", "shifts": [0.0, 0.0, 0.4, 0.0]}
    ruled = [{**row, "rules": [effect]} for row in rows(np.random.default_rng(1), 60)]
    asyncio.run(archive(open_store((tmp_path / "store").as_uri()), "home", ruled))
    named = words(tmp_path, "--policy", "chance")
    ended = run(*named, "--without-rule", "1")
    assert "chance (random) without boost_2, on 60 decisions" in ended.out
    assert (
        "It would make 75.0% of them otherwise than under all rules (the log tells of" in ended.out
    )  # by chance, with a boost
    ended = run(*named, "--without-rule", "all", "--json", "--plot", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    said = json.loads(ended.out)
    assert list(said["without"]) == ["boost", "boost_2"]
    assert said["without"]["boost_2"]["metrics"]["reward"]["logged"] == said["metrics"]["reward"]["logged"]
    gain = said["without"]["boost_2"]["difference"]
    assert (gain["moved"], gain["metrics"]["reward"]["estimator"]) == (0.75, "dr")
    assert gain["metrics"]["reward"]["lower"] < 0 < gain["metrics"]["reward"]["upper"]
    assert "without boost: boost did nothing in any decision of the log" in ended.err
    for wrong in ("2", "pin"):
        ended = run(*named, "--without-rule", wrong)
        assert ended.code == 2
        assert "no such rule" in ended.err
        assert "there are: boost, boost_2" in ended.err


def test_what_the_fallback_answered_is_left_out_counted_and_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policies = [{**row, "t": number} for number, row in enumerate(rows(np.random.default_rng(1), 60))]
    others = [{**row, "origin": "fallback_no_candidates", "propensity": 1.0, "reward": 9.0} for row in policies[:20]]
    log, named = Path("log.jsonl"), ("evaluate", "--placement", "home", "--log", "log.jsonl", "--policy", "random")
    log.write_text("\n".join(map(json.dumps, [*others, *({**each, "origin": "policy"} for each in policies)])))
    said = json.loads(run(*named, "--json").out)
    assert (said["rows"], said["fallback_rows"]) == (60, 20)
    assert said["metrics"]["reward"]["logged"] < 1
    assert said["mean_weight"] == pytest.approx(1, abs=0.3)
    ended = run(*named)
    assert "Left out: 20 decisions (25.0% of all) that the fallback answered" in " ".join(ended.out.split())
    ended = run("replay", "log.jsonl", "--policy", "random", "--method", "ips", "--json")
    assert json.loads(ended.out)["policies"][0]["support"]["rows"] == 60
    log.write_text("\n".join(map(json.dumps, others)))
    for words_of in (named, ("replay", "log.jsonl", "--policy", "random", "--method", "ips")):
        ended = run(*words_of)
        assert ended.code == 2
        assert "the fallback answered all 20 decisions of the log" in ended.err


def test_a_list_ends_where_the_fallback_begins_to_fill_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    logged = [row for number in range(60) for row in shown_list(rng, number, length=3)]
    filled = [{**row, "origin": "fallback_no_candidates" if row["position"] == 2 else "policy"} for row in logged]
    Path("log.jsonl").write_text("\n".join(map(json.dumps, filled)))
    ended = run("evaluate", "--placement", "home", "--log", "log.jsonl", "--policy", "random", "--json")
    lists = json.loads(ended.out)["lists"]
    assert (lists["lists"], lists["mean_length"], lists["left_out"]) == (60, 2, 0)
    assert "take cascade" in lists["metrics"]["reward"]["independence"]["caveat"]
    assert "caveat" not in lists["metrics"]["reward"]["cascade"]
    ended = run("evaluate", "--placement", "home", "--log", "log.jsonl", "--policy", "random")
    assert "* independence: lists are drawn without replacement" in ended.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--policy", "chanec"], "it is no variant of home either: chance"),
        (["--policy", "chance", "--from", "yesterday"], "must be a time like 2026-11-29T14:00:00Z"),
        (["--policy", "chance", "--from", "2027-01-01"], "must be before --to"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(run: Run, mesh: Path, more: list[str], message: str) -> None:
    ended = run(*words(mesh, *more))
    assert ended.code == 2
    assert message in ended.err
