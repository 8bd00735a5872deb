"""A mesh's own sampled decisions: archived, replayed, judged with and without a rule, and as the A/B test then says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from banditmesh.decisions.spec import parse
from banditmesh.ope.interval import Interval
from banditmesh.replay.judgement import Judgement, judge
from banditmesh.replay.replay import Options, replay
from banditmesh.replay.report import report
from services.crs_engine.pipeline.batch import Answered
from tests.support.engine_batch import Bench
from tests.support.engine_world import MESH
from tests.support.sampled import answers, rows, sampled, write

LENGTH, USERS, LIVE_USERS = 2, 200, 3000
POLICY = "random:explore=softmax,temperature=0.5"  # as the variant, whose model has learned nothing
RULES = ("boost: {of: {service: comics}, by: 0.5}", "cap_per_service: {most: 1}")
CLICKS = {"c0": 0.1, "c1": 0.3, "w0": 0.5, "w1": 0.9}


def mesh(*listed: str) -> Bench:
    text = MESH.replace("explore: {greedy: {}}", "explore: {softmax: {temperature: 0.5}}")
    rules = "".join(f"\n      - {each}" for each in listed) or " []"
    bench = Bench(
        text.replace("    experiment:", f"    rules:{rules}\n    decisions: {{sample: 1.0}}\n    experiment:")
    )
    for name in CLICKS:
        bench.content(*_place(name))
    return bench


def _place(name: str) -> tuple[str, str, str]:
    return ("comics" if name.startswith("c") else "weather", name, "drama" if name.endswith("0") else "war")


def served(bench: Bench, n: int, *, seed: int = 0, at_once: int = 64) -> Iterator[Answered]:
    """What n users are answered."""
    keys = [bench.content(*_place(name)) for name in CLICKS]
    users = [bench.user(f"u{number}", {"comics/new": keys[:2], "weather/today": keys[2:]}) for number in range(n)]
    return answers(bench, users, LENGTH, seed=seed, at_once=at_once)


def chance(name: str, position: int) -> float:
    """Of a click: half as likely on the second position."""
    return CLICKS[name] * 0.5**position


class Logged(NamedTuple):
    log: Path
    judgement: Judgement


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    rng = np.random.default_rng(1)
    bench = mesh(*RULES)
    decisions = [each for answered in served(bench, USERS) for each in sampled(bench, answered)]
    listed = rows(decisions, lambda name, position: ["click"] * bool(rng.random() < chance(name, position)))
    log = write(tmp_path_factory.mktemp("own") / "decisions.parquet", listed)
    return Logged(log, judge(log, parse(POLICY), without=["boost", "cap_per_service"]))


def live(*listed: str) -> Interval:
    """Clicks of a list in an A/B test: 95 %."""
    rng = np.random.default_rng(2)
    bench = mesh(*listed)
    names = {bench.content(*_place(name)): name for name in CLICKS}
    (answered,) = served(bench, LIVE_USERS, seed=10_000, at_once=LIVE_USERS)
    (drawn,) = answered.slate.rounds
    shown = [[names[key] for key in each] for each in drawn.pool.contents[drawn.choice.chosen].tolist()]
    chances = np.array([[chance(name, position) for position, name in enumerate(each)] for each in shown])
    clicks = (rng.random(chances.shape) < chances).sum(axis=1)
    mean, half = float(clicks.mean()), 1.96 * float(clicks.std()) / len(clicks) ** 0.5
    return Interval(mean - half, mean + half)


def overlap(left: Interval, right: Interval) -> bool:
    return max(left.lower, right.lower) <= min(left.upper, right.upper)


def test_replay_reads_them_and_finds_the_lists(logged: Logged) -> None:
    method, ((run,),) = replay(logged.log, [parse("linucb:arm=content")], Options(method="ips"))
    said = report([run])
    assert (method, said["rows"], said["lists"]["lists"]) == ("ips", LENGTH * USERS, USERS)


def test_under_the_rules_of_the_log_the_weights_of_its_own_policy_are_1(logged: Logged) -> None:
    found = logged.judgement
    assert found.support.effective == pytest.approx(LENGTH * USERS, rel=1e-6)
    assert found.lists is not None
    assert found.lists.estimates["click_rate"]["standard"].mean_weight == pytest.approx(1, abs=1e-5)
    assert found.lists.logged["click_rate"] == pytest.approx(found.lists.estimates["click_rate"]["cascade"].value)


def test_the_estimate_without_a_rule_agrees_with_the_a_b_test_that_follows(logged: Logged) -> None:
    found = logged.judgement.without["boost"]
    assert found.lists is not None
    assert found.policy == f"{POLICY} without boost"
    with_it, without_it = live(*RULES), live(RULES[1])
    estimate = found.lists.estimates["click_rate"]["cascade"]
    assert overlap(estimate.interval, without_it)
    assert logged.judgement.lists is not None
    assert overlap(logged.judgement.lists.estimates["click_rate"]["cascade"].interval, with_it)
    # The boost is of the contents that are clicked least: it costs something, live and by the estimate.
    assert estimate.value > logged.judgement.lists.logged["click_rate"]
    assert without_it.lower > with_it.upper


def test_without_a_ban_what_it_barred_has_no_support_and_that_is_said_in_words(logged: Logged) -> None:
    found = logged.judgement.without["cap_per_service"]
    assert found.support.mean_weight < 0.95
    assert any("of the policy's decisions have no support in the log" in each for each in found.warnings)
    whole = logged.judgement.metrics["click_rate"].best.interval
    assert found.metrics["click_rate"].best.interval.width > 2 * whole.width
    assert not any("no support" in each for each in logged.judgement.warnings)
