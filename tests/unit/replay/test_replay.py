from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.hashing import content_key, numeric_id
from banditmesh.bandits.linucb import Linucb, LinucbParams
from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.spec import parse
from banditmesh.ope.interval import Interval
from banditmesh.replay.offpolicy import LEARN_EVERY, OffPolicy
from banditmesh.replay.replay import Method, Options, replay
from banditmesh.replay.run import Run
from banditmesh.runtime.errors import InvalidArgument

N_ARMS = 4
RATES = (0.1, 0.3, 0.5, 0.9)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def uniform_rows(n: int, seed: int = 0, *, features: bool = False) -> list[dict[str, Any]]:
    """Arms shown uniformly at random; arm k earns 1 at its rate."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        shown = int(rng.integers(N_ARMS))
        candidates: list[dict[str, Any]] = [{"id": str(arm)} for arm in range(N_ARMS)]
        if features:
            for candidate in candidates:
                candidate["features"] = {"x0": float(rng.normal()), "x1": float(rng.normal())}
        rows.append({"candidates": candidates, "shown": shown, "reward": float(rng.random() < RATES[shown])})
    return rows


@contextmanager
def piped(log: Path) -> Iterator[Path]:
    """A named pipe that gives the log's bytes once."""
    pipe = log.parent / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=lambda: pipe.write_bytes(log.read_bytes()))
    writer.start()
    yield pipe
    writer.join()


def one(log: Path, spec: str, method: Method | None = None, **options: Any) -> Run:
    return replay(log, [parse(spec)], Options(method, **options))[1][0][0]


def test_random_choice_earns_the_mean_of_a_uniform_log(tmp_path: Path) -> None:
    run = one(written(tmp_path / "log", uniform_rows(4000)), "random", "rejection")
    assert run.tally.matches == pytest.approx(1000, abs=100)
    assert run.tally.mean == pytest.approx(np.mean(RATES), abs=0.05)


def test_a_policy_learns_the_best_arm_of_a_uniform_log(tmp_path: Path) -> None:
    run = one(written(tmp_path / "log", uniform_rows(4000)), "linucb:alpha=0.5,prior_reward=0.5", "rejection")
    assert run.tally.curve()[-1].lately > 0.8
    assert run.tally.mean > 0.75


def test_rejection_is_the_loop_of_the_paper_row_by_row(tmp_path: Path) -> None:
    rows = uniform_rows(600, features=True)
    run = one(written(tmp_path / "log", rows), "linucb:dense=x0..x1,alpha=0.7", "rejection")
    policy = Linucb(LinucbParams(dense=("x0", "x1")))
    ids = np.array([numeric_id("x0"), numeric_id("x1")] * N_ARMS, np.uint32)
    keys = np.array([content_key("", str(arm)) for arm in range(N_ARMS)], np.uint64)
    offsets = np.array([0, N_ARMS])
    earned = []
    for row in rows:
        values = np.array([v for each in row["candidates"] for v in each["features"].values()], np.float32)
        features = SparseRows(np.arange(N_ARMS + 1) * 2, ids, values)
        scores = policy.score(Candidates(offsets, keys, keys, keys, SparseRows.empty(1), features))
        pick = int(np.argmax(scores.mean + 0.7 * scores.deviation))
        if pick == row["shown"]:
            earned.append(row["reward"])
            key, one_row = keys[[pick]], features.take(np.array([pick]))
            ones = np.ones(1)
            rewards = np.array([row["reward"]], np.float32)
            policy.learn(Examples(key, key, key, one_row, rewards, ones.astype(np.float32), 0 * ones, ones > 0))
    assert (run.tally.matches, run.tally.mean) == (len(earned), pytest.approx(np.mean(earned), rel=1e-12))
    assert run.tally.rows == 600


def test_a_run_stops_at_its_limit_of_matches(tmp_path: Path) -> None:
    run = one(written(tmp_path / "log", uniform_rows(1000)), "random", "rejection", limit=50)
    assert run.tally.matches == 50
    assert run.tally.rows < 400


def test_simulate_pays_the_reward_of_the_pick(tmp_path: Path) -> None:
    rows = [
        {"context": {"side": side}, "candidates": [{"id": each, "reward": float(each == side)} for each in "ab"]}
        for side in np.random.default_rng(0).choice(["a", "b"], 400).tolist()
    ]
    run = one(written(tmp_path / "log", rows), "linucb:alpha=0.3", "simulate")
    assert run.tally.rows == run.tally.matches == 400
    assert run.tally.curve()[-1].lately == 1.0
    assert 0.3 < one(tmp_path / "log", "random", "simulate").tally.mean < 0.7


def test_ips_of_random_choice_is_worked_out_by_hand(tmp_path: Path) -> None:
    rows = [{**row, "propensity": 0.1 + 0.2 * row["shown"]} for row in uniform_rows(100)]
    run = one(written(tmp_path / "log", rows), "random", "ips")
    assert isinstance(run, OffPolicy)
    by_hand = np.mean([row["reward"] / N_ARMS / row["propensity"] for row in rows])
    assert run.answer.name == "ips"
    assert run.answer.value == pytest.approx(by_hand, rel=1e-6)
    assert run.tally.mean == pytest.approx(by_hand, rel=1e-6)


def new_contents(n: int) -> list[dict[str, Any]]:
    """Every shown content is new and earns 1: a reward model that had peeked would expect 1 of it."""
    return [{"candidates": [{"id": str(row)}], "propensity": 1.0, "reward": 1.0} for row in range(n)]


def test_a_reward_model_has_not_learned_from_the_row_that_it_predicts(tmp_path: Path) -> None:
    log = written(tmp_path / "log", new_contents(500))
    run = one(log, "random", "dr", reward_model="popularity:prior_reward=0.25")
    assert isinstance(run, OffPolicy)
    assert run.evaluation.estimates["dm"].value == pytest.approx(0.25)
    assert run.answer.value == pytest.approx(1.0)


def test_a_reward_model_has_learned_from_all_other_folds(tmp_path: Path) -> None:
    log = written(tmp_path / "log", [{**row, "candidates": [{"id": "a"}]} for row in new_contents(500)])
    run = one(log, "random", "dr", reward_model="popularity:prior_reward=0,prior_weight=1")
    assert isinstance(run, OffPolicy)
    assert run.evaluation.estimates["dm"].value == pytest.approx(1.0, abs=0.01)


def test_a_reward_model_takes_its_prior_from_the_log(tmp_path: Path) -> None:
    rows = [{**row, "reward": float(number % 50 == 0)} for number, row in enumerate(new_contents(500))]
    run = one(written(tmp_path / "log", rows), "random", "dr")
    assert isinstance(run, OffPolicy)
    assert run.evaluation.estimates["dm"].value == pytest.approx(0.02, abs=0.005)


def test_a_pipe_is_predicted_by_a_model_that_learns_on_the_way(tmp_path: Path) -> None:
    log = written(tmp_path / "log", [{**row, "candidates": [{"id": "a"}]} for row in new_contents(2 * LEARN_EVERY)])
    with piped(log) as pipe:
        run = one(pipe, "random", "dr", reward_model="popularity:prior_reward=0,prior_weight=1,half_life=null")
    assert isinstance(run, OffPolicy)
    expected = (LEARN_EVERY * 0 + LEARN_EVERY * LEARN_EVERY / (LEARN_EVERY + 1)) / (2 * LEARN_EVERY)
    assert run.evaluation.estimates["dm"].value == pytest.approx(expected, rel=1e-5)


def test_the_policy_that_is_evaluated_has_not_learned_from_the_row_either(tmp_path: Path) -> None:
    """b earns 1 and a 0; greedy before it has learned is undecided, afterwards it always takes b."""
    rows = [
        {"candidates": [{"id": "a"}, {"id": "b"}], "shown": n % 2, "propensity": 0.5, "reward": float(n % 2)}
        for n in range(2 * LEARN_EVERY)
    ]
    log = written(tmp_path / "log", rows)
    spec = "popularity:explore=greedy"
    assert one(log, spec, "ips", limit=LEARN_EVERY).tally.mean == pytest.approx(0.5)
    assert one(log, spec, "ips").tally.mean == pytest.approx(0.75)


def test_dr_values_the_best_arm_from_a_log_that_rarely_showed_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    chances = [0.4, 0.3, 0.2, 0.1]
    rows = []
    for _ in range(4000):
        shown = int(rng.choice(N_ARMS, p=chances))
        rows.append(
            {
                "candidates": [{"id": str(arm)} for arm in range(N_ARMS)],
                "shown": shown,
                "propensity": chances[shown],
                "reward": float(rng.random() < RATES[shown]),
            }
        )
    run = one(written(tmp_path / "log", rows), "popularity:half_life=null,explore=greedy", "dr")
    assert isinstance(run, OffPolicy)
    lower, upper = run.answer.interval
    assert lower < 0.9 < upper + 0.03
    assert upper - lower < 0.25
    assert run.evaluation.support.mean_weight == pytest.approx(1, abs=0.2)
    assert run.evaluation.unseen.share == 0
    assert run.warnings == []


def test_a_log_that_always_showed_one_arm_says_little_of_random_choice(tmp_path: Path) -> None:
    """Nine arms of ten were never seen, so nearly everything between 0 and 1 is possible."""
    candidates = [{"id": str(arm)} for arm in range(10)]
    rows = [{"candidates": candidates, "shown": 0, "propensity": 1.0, "reward": float(n % 2)} for n in range(1000)]
    run = one(written(tmp_path / "log", rows), "random", "auto")
    assert isinstance(run, OffPolicy)
    assert all(each.interval.lower < 0.06 and each.interval.upper > 0.94 for each in run.evaluation.estimates.values())
    assert run.evaluation.unseen.share == pytest.approx(0.9)
    assert any("never showed" in each for each in run.warnings)


def test_a_tiny_propensity_is_named_with_its_line(tmp_path: Path) -> None:
    rows = [{**row, "propensity": 0.25} for row in uniform_rows(300)]
    rows[6] |= {"propensity": 1e-300, "reward": 1.0}
    run = one(written(tmp_path / "log", rows), "random", "ips")
    assert isinstance(run, OffPolicy)
    assert any("line 7 has a propensity so small" in each for each in run.warnings)
    assert run.answer.interval == (0, 1)
    assert run.evaluation.estimates["clipped_ips"].value == pytest.approx(np.mean(RATES), abs=0.15)


def test_auto_takes_the_smallest_interval(tmp_path: Path) -> None:
    rows = [{**row, "propensity": 0.1 + 0.2 * row["shown"]} for row in uniform_rows(3000)]
    run = one(written(tmp_path / "log", rows), "random", "auto")
    assert isinstance(run, OffPolicy)
    unbiased = [run.evaluation.estimates[name] for name in ("dr", "mrdr", "snips", "ips", "bounds")]
    assert run.answer.interval.width <= 1.1 * min(each.interval.width for each in unbiased)


def test_a_reward_outside_of_the_stated_range_names_its_line(tmp_path: Path) -> None:
    rows = [{**row, "propensity": 0.25} for row in uniform_rows(20)]
    rows[11]["reward"] = 7
    with pytest.raises(InvalidArgument, match=r"log:12: .*0 to 1"):
        one(written(tmp_path / "log", rows), "random", "ips", rewards=Interval(0.0, 1.0))


def test_two_seeds_draw_otherwise_and_one_seed_twice_draws_the_same(tmp_path: Path) -> None:
    log = written(tmp_path / "log", uniform_rows(500))
    first, again = (replay(log, [parse("random")], Options("rejection", seeds=2))[1][0] for _ in range(2))
    assert [run.tally.mean for run in first] == [run.tally.mean for run in again]
    assert first[0].tally.matches != first[1].tally.matches or first[0].tally.mean != first[1].tally.mean


def test_policies_side_by_side_do_as_they_do_alone(tmp_path: Path) -> None:
    log = written(tmp_path / "log", uniform_rows(500))
    specs = [parse("random"), parse("linucb"), parse("linear")]
    together = replay(log, specs, Options("rejection"))[1]
    for spec, (run,) in zip(specs, together, strict=True):
        assert run.tally.mean == replay(log, [spec], Options("rejection"))[1][0][0].tally.mean


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ({}, "rejection"),
        ({"propensity": 0.25}, "rejection"),
        ({"propensity": 0.5}, "auto"),
        (
            {"candidates": [{"id": "a", "reward": 1}, {"id": "b", "reward": 0}], "shown": None, "reward": None},
            "simulate",
        ),
    ],
)
def test_the_first_row_decides_the_method_when_nobody_says(tmp_path: Path, change: dict[str, Any], method: str) -> None:
    log = written(tmp_path / "log", [{**row, **change} for row in uniform_rows(5)])
    assert replay(log, [parse("random")], Options())[0] == method


@pytest.mark.parametrize(
    ("method", "change", "says"),
    [
        ("rejection", {"propensity": 0.9}, "uniformly at random"),
        ("ips", {}, "--uniform"),
        ("dr", {}, "--uniform"),
        ("simulate", {}, "every candidate"),
        ("dr", {"candidates": [{"id": "a", "reward": 1}], "shown": None, "reward": None}, "propensity"),
    ],
)
def test_a_row_that_does_not_fit_the_method_names_its_line(
    tmp_path: Path, method: Method, change: dict[str, Any], says: str
) -> None:
    log = written(tmp_path / "log", [{**row, **change} for row in uniform_rows(3)])
    with pytest.raises(InvalidArgument, match="log:1: ") as refused:
        one(log, "random", method)
    assert says in str(refused.value)


def test_uniform_stands_for_the_propensities_that_nobody_logged(tmp_path: Path) -> None:
    log = written(tmp_path / "log", uniform_rows(200))
    said = written(tmp_path / "said", [{**row, "propensity": 0.25} for row in uniform_rows(200)])
    assert one(log, "linucb", "ips", uniform=True).tally.mean == one(said, "linucb", "ips").tally.mean


def test_a_broken_row_ends_the_replay_with_its_line(tmp_path: Path) -> None:
    log = written(tmp_path / "log", [*uniform_rows(300), {"candidates": []}])
    with pytest.raises(BrokenRow, match="log:301: "):
        one(log, "random", "rejection")


def test_an_empty_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no rows"):
        one(written(tmp_path / "log", []), "random")


def test_progress_is_the_rows_that_are_done_and_the_share_of_the_file(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    log = written(tmp_path / "log", uniform_rows(1000))
    replay(log, [parse("random")], Options("rejection"), lambda rows, share: told.append((rows, share)))
    assert [rows for rows, _ in told] == [256, 512, 768, 1000]
    assert [share for _, share in told] == pytest.approx([0.256, 0.512, 0.768, 1.0], abs=0.01)


def test_a_pipe_is_replayed(tmp_path: Path) -> None:
    log = written(tmp_path / "log", uniform_rows(300))
    with piped(log) as pipe:
        assert one(pipe, "random", "rejection").tally.mean == one(log, "random", "rejection").tally.mean
