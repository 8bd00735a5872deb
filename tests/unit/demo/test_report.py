"""The numbers behind the demo's verdict."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.demo.report import LEARNED, RANDOM, Examples, Outcome, delivery, difference, variant_result


def outcomes(variant: str, rates: list[float], impressions: int, seed: int = 0) -> list[Outcome]:
    """One user for each rate, with so many impressions."""
    rng = np.random.default_rng(seed)
    return [
        Outcome(variant, f"{variant}-{user}", bool(click), 1.0 if click else 0.5)
        for user, rate in enumerate(rates)
        for click in rng.random(impressions) < rate
    ]


def test_every_impression_once_is_exact() -> None:
    assert delivery({b"a": LEARNED, b"b": RANDOM}, {b"a": 1, b"b": 1}).exact


@pytest.mark.parametrize(
    ("copies", "wrong"),
    [({b"a": 1}, "missing"), ({b"a": 1, b"b": 2}, "duplicated"), ({b"a": 1, b"b": 1, b"c": 1}, "unexpected")],
)
def test_anything_else_is_not_exact(copies: dict[bytes, int], wrong: str) -> None:
    found = delivery({b"a": LEARNED, b"b": RANDOM}, copies)
    assert not found.exact
    assert getattr(found, wrong) == 1


def test_a_clear_difference_is_found() -> None:
    rows = outcomes(LEARNED, [0.4] * 200, 10) + outcomes(RANDOM, [0.2] * 200, 10, seed=1)
    found = difference(rows, "clicked")
    assert found.better
    assert found.value == pytest.approx(0.2, abs=0.05)
    assert found.lower < found.value < found.upper


def test_no_difference_is_not_found() -> None:
    rows = outcomes(LEARNED, [0.2] * 200, 10) + outcomes(RANDOM, [0.2] * 200, 10, seed=1)
    assert not difference(rows, "clicked").better


def test_a_worse_policy_is_not_better() -> None:
    rows = outcomes(LEARNED, [0.1] * 200, 10) + outcomes(RANDOM, [0.3] * 200, 10, seed=1)
    assert not difference(rows, "reward").better


def test_people_who_are_all_alike_within_themselves_widen_the_interval() -> None:
    """Impressions of one person are not independent: with people who always or never click it is people who count."""
    alike = outcomes(LEARNED, [0.0, 1.0] * 50, 100) + outcomes(RANDOM, [0.0, 1.0] * 50, 100)
    mixed = outcomes(LEARNED, [0.5] * 100, 100) + outcomes(RANDOM, [0.5] * 100, 100, seed=1)
    wide, narrow = difference(alike, "clicked"), difference(mixed, "clicked")
    assert wide.upper - wide.lower > 5 * (narrow.upper - narrow.lower)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        rates = rng.beta(2, 5, 160)
        rows = outcomes(LEARNED, list(rates[:80]), 12, seed) + outcomes(RANDOM, list(rates[80:]), 12, seed + 1000)
        found = difference(rows, "clicked")
        covered += found.lower <= 0 <= found.upper
    assert 0.90 <= covered / 200 <= 0.99


def test_a_variant_nobody_saw_has_no_rate() -> None:
    assert variant_result([], LEARNED).impressions == 0
    assert not difference(outcomes(LEARNED, [0.5] * 10, 10), "clicked").better


def test_examples_keep_the_newest_model_version() -> None:
    examples = Examples()
    for version in (3, 7, 5):
        decision = events_pb2.Decision(impression_id=b"%d" % version, variant=LEARNED, model_version=version)
        examples.add(events_pb2.JoinedImpression(decision=decision, outcome=events_pb2.OUTCOME_CLICK, reward=1.0))
    assert examples.model_versions == {LEARNED: 7}
    assert len(examples.copies) == 3
    assert all(outcome.clicked for outcome in examples.outcomes)
