"""What a sampled decision says of each rule is what there would be in a placement that lacks the rule."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.exploration.constraint import blocking, shifted
from banditmesh.runtime.rule_options import names
from services.crs_engine.pipeline import rules
from services.crs_engine.pipeline.batch import Round, Slate
from services.crs_engine.pipeline.rules.effects import Effects, Step
from tests.support.engine_batch import Bench
from tests.support.sampled import answers, sampled
from tests.unit.crs_engine.test_business_rules import bench_of, several

SPONSORED = "{attribute: label, values: [sponsored]}"


def shelf(*listed: str) -> Bench:
    return bench_of(*listed, explore="{softmax: {temperature: 0.5}}")


def users(bench: Bench, n: int) -> list[str]:
    comics = [bench.content("comics", f"c{at}", "drama" if at % 2 else "war|drama") for at in range(4)]
    paid = [bench.content("weather", f"paid{at}", "storm", label="sponsored") for at in range(2)]
    return several(bench, n, {"comics/new": comics, "weather/today": [*paid, bench.content("weather", "w", "war")]})


def expected(bench: Bench, drawn: Round, slate: Slate, column: int, gone: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Who is free, and by which means, in a placement that does not have the rule at all."""
    placement = bench.mesh.placements["head"]
    kept = [each for each, name in zip(placement.rules, names(placement.rules), strict=True) if name != gone]
    enabled = rules.enabled(placement.model_copy(update={"rules": kept}))
    empty = Slate.empty(slate.group, slate.users)
    constraints = list(rules.constraints(drawn.view, drawn.pool, empty, drawn.scores, enabled).values())
    before = drawn.choice.chosen[:, :column]
    left = np.ones(len(drawn.pool), np.bool_)
    left[before[before >= 0]] = False
    free = left
    for _, blocked in blocking(constraints, before, left, drawn.pool.offsets):
        free = free & ~blocked
    return free, shifted(drawn.scores, constraints, before).mean


def without(step: Step, gone: str, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same by what the step says."""
    free, by = step.free.copy(), np.zeros(len(scores))
    for each in step.effects:
        if each.rule == gone:
            free = (free | each.adds) & ~each.drops
            continue
        by += 0 if each.shifts is None else each.shifts
        by += 0 if each.shares is None else each.shares * np.abs(scores)
    return free, scores + by


@pytest.mark.parametrize(
    "listed",
    [
        ["cap_per_service: {most: 1}", "cap_per_attribute: {attribute: genre, most: 2}"],
        # Each leaves room for the other: without the pin the quota waits longer.
        [f"quota: {{of: {SPONSORED}, at_least: 1, first: 3}}", "pin: {of: {content: weather/w}, position: 2}"],
        [f"quota: {{of: {SPONSORED}, at_least: 2, first: 3}}", "quota: {of: {service: comics}, at_least: 1, first: 3}"],
        ["pin: {of: {service: comics}, position: 0}", "spread: {attribute: genre}", "cap_per_service: {most: 2}"],
        ["boost: {of: {service: comics}, share: 0.5}", "bury: {of: {service: weather}, by: 0.2}"],
        [
            "diversity: {attribute: genre, penalty: 0.3}",
            "spread: {attribute: genre}",
            "boost: {of: {service: comics}, by: 1}",
        ],
    ],
)
def test_without_a_rule_there_is_what_a_placement_that_lacks_it_has(listed: list[str]) -> None:
    bench = shelf(*listed)
    (answered,) = answers(bench, users(bench, 12), 3)
    slate, rebuilt = answered.slate, rules.rebuilt(bench.mesh.placements["head"])
    drawn = slate.rounds[0]  # a fallback may have filled what caps left open
    changed = 0
    for user in range(12):
        mine = slice(int(drawn.pool.offsets[user]), int(drawn.pool.offsets[user + 1]))
        effects = Effects(drawn, slate, user, rebuilt)
        for column in np.flatnonzero(drawn.choice.chosen[user] >= 0).tolist():
            step = effects.at(column)
            free, means = expected(bench, drawn, slate, column, None)
            assert step.free.tolist() == free[mine].tolist()
            assert step.means.tolist() == pytest.approx(means[mine].tolist())
            for name in drawn.constraints:
                free, means = expected(bench, drawn, slate, column, name)
                said, moved = without(step, name, drawn.scores.mean[mine])
                assert said.tolist() == free[mine].tolist(), (name, column)
                assert moved[said].tolist() == pytest.approx(means[mine][said].tolist(), abs=1e-6)
                changed += said.tolist() != step.free.tolist() or not np.allclose(moved, step.means)
    assert changed  # else the rules did nothing


def test_a_record_says_who_was_barred_by_which_rule_and_what_it_adds_to_scores() -> None:
    bench = shelf("cap_per_service: {most: 1}", "boost: {of: {content: comics/c0}, by: 0.25}")
    bench = Bench(bench.text.replace("    experiment:", "    decisions: {sample: 1.0}\n    experiment:"))
    (answered,) = answers(bench, users(bench, 1), 2)
    first, second = sampled(bench, answered)
    assert first.schema_version == 2
    (boost,) = first.rules
    listed = [each.content_id for each in first.candidates]
    assert (boost.rule, list(boost.adds), list(boost.shares), list(first.barred)) == ("boost", [], [], [])
    assert dict(zip(listed, boost.shifts, strict=True)) == {each: 0.25 * (each == "c0") for each in listed}
    cap = next(each for each in second.rules if each.rule == "cap_per_service")
    behind = len(second.candidates)
    assert list(cap.adds) == list(range(behind, behind + len(second.barred)))
    assert {each.service for each in second.barred} == {first.decision.service}
    assert {each.propensity for each in second.barred} == {0.0}
    assert len(second.barred) + len(second.candidates) == 6
    assert all(each.features for each in second.barred)
