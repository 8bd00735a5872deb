"""Intervals of 95 % cover the truth in at least 93 % of many logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from banditmesh.ope.bounds import Bounds
from banditmesh.ope.dr import Dr
from banditmesh.ope.estimator import Estimator
from banditmesh.ope.ips import Ips
from banditmesh.ope.snips import Snips

from .worlds import World, adaptive_worlds, world

REPEATS = 200
RARE = (0.005, 0.01, 0.015, 0.02)


def logs(n: int, **kind: tuple[float, ...]) -> Iterable[World]:
    return (world(np.random.default_rng(seed), n, **kind) for seed in range(REPEATS))  # type: ignore[arg-type]


WORLDS: dict[str, Callable[[], Iterable[World]]] = {
    "mild": lambda: logs(500),
    "rare clicks": lambda: logs(500, rates=RARE),
    "heavy": lambda: logs(500, logging=(0.97, 0.01, 0.01, 0.01)),
    "heavy, rare clicks": lambda: logs(2000, logging=(0.97, 0.01, 0.01, 0.01), rates=RARE),
    "heaviest weights never seen": lambda: logs(500, logging=(0.9994, 0.0002, 0.0002, 0.0002)),
    "written while learning": lambda: adaptive_worlds(np.random.default_rng(1), REPEATS, 600),
}


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_truth(name: str) -> None:
    makes: tuple[type[Estimator], ...] = (Ips, Snips, Dr, Bounds)
    covered = dict.fromkeys(makes, 0)
    for true in WORLDS[name]():
        for make in makes:
            estimator = make()
            estimator.add(true.rows)
            lower, upper = estimator.interval()
            covered[make] += lower <= true.value <= upper
    assert {make.name: count / REPEATS for make, count in covered.items() if count < 0.93 * REPEATS} == {}


def test_many_mild_rows_cost_an_interval_next_to_nothing() -> None:
    rows = world(np.random.default_rng(0), 20_000).rows
    for make in (Ips, Snips, Dr):
        estimator = make()
        estimator.add(rows)
        assert estimator.interval().width == pytest.approx(
            estimator.normal().upper - estimator.normal().lower, rel=0.03
        )
