"""EvaluatePolicy and WatchEvaluation: right, told as it goes, cancellable, one at a time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from banditmesh.contracts.learner.v1 import learner_pb2
from banditmesh.runtime.clock import SystemClock
from banditmesh.runtime.errors import InvalidArgument, MeshError, NotFound, ResourceExhausted
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.store import Store, open_store
from services.learner.evaluation_reply import evaluated, question
from services.learner.evaluations import Evaluations
from tests.support.decisions import CLICKS, LOGGED, NAMES, NOON, archive, rows, shown_list, truth
from tests.support.eventually import eventually_so

TEXT = """
services: {press: {logics: [all]}}
placements:
  home:
    sources: [press/all]
    experiment: {variants: {chance: {weight: 1, policy: random}, learned: {weight: 1, policy: linear}}}
"""
MESH = parse_mesh(TEXT)


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    made = open_store((tmp_path / "store").as_uri())
    await archive(made, "home", rows(np.random.default_rng(4), 400))
    return made


def asked(**fields: object) -> learner_pb2.EvaluatePolicyRequest:
    request = learner_pb2.EvaluatePolicyRequest(**{"placement": "home", "variant": "chance", **fields})  # type: ignore[arg-type]
    request.start_time.FromDatetime(NOON)
    request.end_time.FromDatetime(NOON + timedelta(hours=1))
    return request


def evaluations(store: Store) -> Evaluations:
    return Evaluations(MESH.placements, store, SystemClock())


async def test_a_variant_is_judged_by_reward_click_and_mute_rate_and_progress_is_told(store: Store) -> None:
    updates = [update async for update in evaluations(store).watch(question(asked()))]
    assert [update.result is not None for update in updates] == [False] * (len(updates) - 1) + [True]
    assert updates[-1].result is not None
    answer = evaluated(updates[-1].result)
    found = {(each.metric, each.estimator): each for each in answer.estimates}
    true = truth(np.full(len(NAMES), 1 / len(NAMES)))
    for metric, value in true.items():
        for estimator in ("best", "dr", "ips", "snips"):
            assert found[metric, estimator].lower <= value <= found[metric, estimator].upper
        assert found[metric, "logged"].value == pytest.approx(truth(LOGGED)[metric], abs=0.1)
    assert (answer.decisions, answer.policy) == (400, "chance (random)")
    assert answer.matched_weight == pytest.approx(1, abs=0.2)
    assert 0 < answer.effective_sample_size < 400


async def test_ranked_lists_are_judged_as_a_whole(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    rng = np.random.default_rng(5)
    logged = [row for number in range(100) for row in shown_list(rng, number, length=2)]
    await archive(
        store, "home", [{**row, "t": NOON + timedelta(milliseconds=at // 2)} for at, row in enumerate(logged)]
    )
    answer = evaluated(await evaluations(store).run(question(asked())))
    assert (answer.lists.lists, answer.lists.mean_length, answer.lists.left_out) == (100, 2, 0)
    found = {(each.metric, each.estimator): each for each in answer.lists.estimates}
    assert {metric for metric, _ in found} == {"reward", "click_rate", "mute_rate"}
    for assumption in ("independence", "cascade", "standard"):
        assert found["click_rate", assumption].lower < 2 * 0.225 < found["click_rate", assumption].upper
    assert found["reward", "logged"].decisions == 100


async def test_the_policy_is_judged_without_each_rule_that_is_named(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    effect = {"rule": "pin", "shifts": [0.0, 0.0, 0.0, 1.0]}
    await archive(store, "home", [{**row, "rules": [effect]} for row in rows(np.random.default_rng(6), 100)])
    rules = "    rules: [{pin: {of: {service: press}, position: 0}}]\n"
    mesh = parse_mesh(TEXT.replace("    experiment", f"{rules}    experiment"))
    one = Evaluations(mesh.placements, store, SystemClock())
    explored = {"variant": "", "policy": "random", "explore": "softmax:temperature=1.0"}
    answer = evaluated(await one.run(question(asked(**explored, without_rules=["0", "pin"]))))
    (without,) = answer.without
    assert without.rule == "pin"
    assert answer.largest_weight > without.result.largest_weight
    assert {each.metric for each in without.result.estimates} == {"reward", "click_rate", "mute_rate"}
    assert [each.metric for each in without.differences] == ["reward", "click_rate", "mute_rate"]
    by_metric = {each.metric: each for each in without.differences}
    assert (by_metric["reward"].estimator, by_metric["reward"].by) == ("difference", "dr")
    gained = (np.full(4, 0.25) - np.exp([0, 0, 0, 1]) / np.exp([0, 0, 0, 1]).sum()) @ (0.75 * CLICKS)
    assert by_metric["click_rate"].lower <= gained <= by_metric["click_rate"].upper
    assert without.moved == pytest.approx(np.e / (3 + np.e) - 0.25, rel=1e-4)
    assert without.told == pytest.approx(1, abs=0.3)
    with pytest.raises(InvalidArgument, match="no such rule"):
        await one.run(question(asked(without_rules=["boost"])))


async def test_a_call_that_is_cancelled_ends_the_work_and_meanwhile_no_other_begins(store: Store) -> None:
    one = evaluations(store)
    task = asyncio.create_task(one.run(question(asked())))
    await eventually_so(lambda: one._busy)
    with pytest.raises(ResourceExhausted):
        await one.run(question(asked()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually_so(lambda: not one._busy)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"placement": "hmoe"}, NotFound, "no such placement"),
        ({"variant": "old"}, NotFound, "no such variant"),
        ({"variant": ""}, InvalidArgument, "either variant or policy"),
        ({"policy": "linucb"}, InvalidArgument, "either variant or policy"),
        ({"variant": "", "policy": "lincub"}, InvalidArgument, "does not exist"),
        ({"variant": "", "policy": "/etc/any.yaml"}, InvalidArgument, "no files"),
        ({"variant": "", "policy": "linucb", "explore": "any.yaml"}, InvalidArgument, "no files"),
        ({"variant": "", "policy": "linucb:dimension=" + "[" * 900}, InvalidArgument, "dimension"),
        ({"explore": "ubc"}, InvalidArgument, "ubc"),
        ({"variant": "learned"}, NotFound, "nothing is published"),
    ],
)
async def test_what_is_wrong_is_said(
    fields: dict[str, object], error: type[MeshError], words: str, store: Store
) -> None:
    one = evaluations(store)
    with pytest.raises(error, match=words):
        await one.run(question(asked(**fields)))
    assert not one._busy


@pytest.mark.parametrize(("seconds", "nanos"), [(2**63 - 1, 0), (-(10**15), 0), (0, -1), (0, 2**31 - 1)])
def test_a_time_that_is_none_is_named(seconds: int, nanos: int) -> None:
    request = asked()
    request.end_time.seconds, request.end_time.nanos = seconds, nanos
    with pytest.raises(InvalidArgument, match=r"end_time.*years 1 to 9999|years 1 to 9999.*end_time"):
        question(request)


async def test_a_span_of_time_without_decisions_is_said(store: Store) -> None:
    request = asked()
    request.start_time.FromDatetime(NOON - timedelta(days=2))
    request.end_time.FromDatetime(NOON - timedelta(days=1))
    with pytest.raises(NotFound, match="has no decisions"):
        await evaluations(store).run(question(request))
    request.start_time.FromDatetime(NOON)
    with pytest.raises(InvalidArgument, match="before end_time"):
        await evaluations(store).run(question(request))
