"""The logs of ``benchmarks.online``."""

from __future__ import annotations

from itertools import islice

import numpy as np

from benchmarks.online.simulations import SIMULATIONS

_ROWS = 1_500
"""Decisions of a log on the page."""


def test_users_change_what_they_like_within_the_rows_of_the_page() -> None:
    sim = SIMULATIONS["shift"]
    assert 0 < sim.shift < _ROWS
    found: list[dict[tuple[str, str], set[float]]] = [{}, {}]
    for step, row in enumerate(islice(sim.rows(0), _ROWS)):
        candidates: list[dict[str, object]] = row["candidates"]  # type: ignore[assignment]
        for each in candidates:
            means = found[step >= sim.shift].setdefault((str(row["user"]), str(each["id"])), set())
            means.add(round(float(each["mean"]), 9))  # type: ignore[arg-type]

    assert all(len(means) == 1 for half in found for means in half.values())  # nothing moves but at the shift
    both = found[0].keys() & found[1].keys()
    assert len(both) > 100
    assert np.mean([found[0][each] != found[1][each] for each in both]) > 0.9
