"""The arithmetic of ``benchmarks.steady``."""

from __future__ import annotations

import pytest

from benchmarks.steady import Seen, figures


def test_the_slope_is_that_behind_the_warm_up() -> None:
    at_s = [60.0 * minute for minute in range(11)]
    filling = [100.0 + 10 * min(minute, 5) for minute in range(11)]
    growing = [100.0 + 0.5 * minute for minute in range(11)]
    found = figures(Seen(at_s, {"flat": filling, "leaky": growing}), warm_up_s=300)

    assert found["flat"] == pytest.approx(
        {"start_mb": 100, "first_mb": 150, "last_mb": 150, "mb_a_minute": 0}, abs=1e-9
    )
    assert found["leaky"]["mb_a_minute"] == pytest.approx(0.5)


def test_a_short_run_leaves_out_its_first_half() -> None:
    assert figures(Seen([0.0, 10.0, 20.0], {"one": [1.0, 2.0, 3.0]}), warm_up_s=300)["one"]["first_mb"] == 2.0


def test_what_was_not_answered_is_left_out() -> None:
    nothing = float("nan")
    seen = Seen([0.0, 60.0, 120.0, 180.0, 240.0], {"one": [1.0, nothing, 2.0, nothing, 4.0]})
    found = figures(seen, warm_up_s=120)["one"]
    assert found == pytest.approx({"start_mb": 1, "first_mb": 2, "last_mb": 4, "mb_a_minute": 1})
