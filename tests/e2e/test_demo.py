"""The demo in small: too few visits for its statistics, enough to see that every impression comes out once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import banditmesh

VISITS = 1500


@pytest.mark.timeout(180)
def test_every_acknowledged_impression_of_a_small_demo_becomes_exactly_one_example(tmp_path: Path) -> None:
    result, plot = tmp_path / "result.json", tmp_path / "plot.png"
    run = banditmesh(
        *("demo", "--visits", str(VISITS), "--dir", tmp_path / "mesh", "--plot", plot, "--json", result),
        timeout_s=170,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    assert result.exists(), run.stdout + run.stderr
    delivery = json.loads(result.read_text())["delivery"]
    assert delivery["acknowledged"] > VISITS // 2
    assert delivery["once"] == delivery["acknowledged"]
    assert (delivery["missing"], delivery["duplicated"], delivery["unexpected"]) == (0, 0, 0)
    assert plot.exists()
