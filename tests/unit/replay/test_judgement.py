"""A policy judged on another one's decisions: the truth lies within the intervals, also when it goes live."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from banditmesh.bandits.registry import build
from banditmesh.decisions.spec import parse
from banditmesh.experiments.era import Plan, Shown
from banditmesh.experiments.report import report as experiment_report
from banditmesh.experiments.tally import Tally
from banditmesh.ope.evaluation import Evaluation
from banditmesh.replay.judgement import SHOWN_ESTIMATORS, Judgement, judge
from banditmesh.replay.judgement_report import report
from banditmesh.replay.of_mesh import joined, spool, target
from banditmesh.runtime.errors import InvalidArgument, NotFound
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import open_store
from tests.support.decisions import LOGGED, NAMES, NOON, archive, rows, shown_by, truth
from tests.unit.ope.worlds import world

UNIFORM = np.full(len(NAMES), 1 / len(NAMES))
MESH = parse_mesh("""
services: {press: {logics: [all]}}
placements:
  home:
    sources: [press/all]
    features: {context: [time], content: [kind], crosses: [[time, kind]]}
    experiment: {variants: {
      chance: {weight: 1, policy: random},
      learned: {weight: 1, policy: {linear: {}}, explore: {epsilon_greedy: {epsilon: 0.2}}}}}
""")
HOME = MESH.placements["home"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    logged = [{**row, "t": row["t"].isoformat()} for row in rows(np.random.default_rng(2), 1000)]  # type: ignore[attr-defined]
    path.write_text("\n".join(map(json.dumps, logged)))
    return path


@pytest.fixture(scope="module")
def of_chance(log: Path) -> Judgement:
    return judge(log, parse("random"))


@pytest.mark.parametrize("metric", ["reward", "click_rate", "mute_rate"])
def test_the_truth_lies_within_the_intervals_of_every_metric(of_chance: Judgement, metric: str) -> None:
    judged, true = of_chance.metrics[metric], truth(UNIFORM)[metric]
    for name in SHOWN_ESTIMATORS:
        lower, upper = judged.estimates[name].interval
        assert lower <= true <= upper, name
    assert judged.best.interval.lower <= true <= judged.best.interval.upper
    assert judged.logged == pytest.approx(truth(LOGGED)[metric], abs=0.05)


def test_a_log_that_supports_the_policy_has_no_warning(of_chance: Judgement) -> None:
    assert of_chance.warnings == ()
    assert of_chance.support.mean_weight == pytest.approx(1, abs=0.1)
    assert 300 < of_chance.support.effective < 1000
    said = report(of_chance)
    assert said["rows"] == 1000
    assert said["metrics"]["mute_rate"]["ips"]["lower"] > 0
    json.dumps(said, allow_nan=False)


def test_over_200_logs_intervals_of_95_percent_cover_the_truth_in_92_to_98() -> None:
    covered = dict.fromkeys(SHOWN_ESTIMATORS, 0)
    for seed in range(200):
        true = world(np.random.default_rng(seed), 1000)
        evaluation = Evaluation(SHOWN_ESTIMATORS)
        evaluation.add(true.rows)
        for name, estimate in evaluation.estimates.items():
            covered[name] += estimate.interval.lower <= true.value <= estimate.interval.upper
    assert all(0.92 <= count / 200 <= 0.98 for count in covered.values()), covered


async def test_the_estimate_from_the_archive_agrees_with_the_a_b_test_that_follows(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    rng = np.random.default_rng(3)
    await archive(store, "home", rows(rng, 600))
    path = tmp_path / "decisions.parquet"
    assert await spool(store, "home", NOON, NOON + timedelta(hours=1), path) == 600
    judged = judge(path, await target(store, "home", HOME, "random"))

    tally = Tally()
    tally.plan(Plan("s", {"logged": 1.0, "chance": 1.0}, "logged", compared=("chance",)), 0)
    n = 4000
    for variant, chances in {"logged": LOGGED, "chance": UNIFORM}.items():
        found = shown_by(rng, chances, n)
        users = np.arange(n, dtype=np.uint64) * 2 + (variant == "chance")
        never, when = np.zeros(n, np.bool_), np.ones(n, np.int64)
        tally.learn(
            Shown(
                users,
                [variant] * n,
                when,
                when,
                found["rewards"],
                found["clicked"],
                found["muted"],
                never,
                never,
                [""] * n,
            )
        )
    figures = next(each for each in experiment_report(tally.eras[-1]).variants if each.name == "chance").figures
    for metric in ("reward", "click_rate", "mute_rate"):
        estimate, live = judged.metrics[metric].best.interval, figures[metric].range
        assert max(estimate.lower, live.lower) <= min(estimate.upper, live.upper), metric
        assert figures[metric].difference_range.lower <= judged.metrics[metric].best.value - truth(LOGGED)[metric]


async def test_a_variant_is_its_newest_published_model_and_its_crosses(tmp_path: Path, log: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    with pytest.raises(NotFound, match="nothing is published"):
        await target(store, "home", HOME, "learned")
    variant = HOME.experiment.variants["learned"]
    params = build(variant.policy_name, variant.policy_params).params.model_dump(mode="json")
    manifest = Manifest("home", variant.model, "linear", params, 0, 1, 0, {}, {})
    policy = build(variant.policy_name, variant.policy_params)
    await Snapshots(store, None).publish(manifest, policy.tensors(), after=None)
    spec = await target(store, "home", HOME, "learned")
    assert spec.text == f"learned (home/{variant.model} version 1)"
    assert (spec.explore, spec.explore_params) == ("epsilon_greedy", {"epsilon": 0.2})
    assert (await target(store, "home", HOME, "learned", "ucb:alpha=0.3")).explore_params == {"alpha": 0.3}
    judged = judge(log, spec)
    assert judged.metrics["click_rate"].best.value == pytest.approx(truth(UNIFORM)["click_rate"], abs=0.05)


async def test_what_is_neither_a_variant_nor_a_policy_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no variant of home either: chance, learned"):
        await target(open_store(tmp_path.as_uri()), "home", HOME, "laerned")


async def test_an_empty_archive_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has no decisions of home"):
        await spool(open_store(tmp_path.as_uri()), "home", NOON, NOON + timedelta(hours=1), tmp_path / "x.parquet")


def test_an_exploration_is_put_into_a_spec() -> None:
    assert parse(joined("linucb", "ucb:alpha=0.5,floor=0.1")).explore_params == {"alpha": 0.5, "floor": 0.1}
    assert parse(joined("linear:link=identity", "greedy")).explore == "greedy"


def test_a_log_without_reactions_has_no_click_rate_and_one_without_propensities_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    row = {"candidates": [{"id": "a"}, {"id": "b"}], "shown": 0, "reward": 1.0}
    path.write_text("\n".join([json.dumps({**row, "propensity": 0.5})] * 40))
    assert list(judge(path, parse("random")).metrics) == ["reward"]
    path.write_text(json.dumps(row))
    with pytest.raises(InvalidArgument, match=r"log.jsonl:1: does not say the propensity"):
        judge(path, parse("random"))
