"""Replays in which the policy decides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from banditmesh.decisions.encoder import encode
from banditmesh.decisions.row import Decision
from banditmesh.decisions.row import parse as parse_row
from banditmesh.decisions.spec import parse
from banditmesh.replay.online import Simulation

from ..bandits.laws import same_bytes


class OneByOne(Simulation):
    def _unchanged(self) -> int:
        return 1


def decisions(n: int) -> Iterator[Decision]:
    """Numeric contexts, and a different one of three arms that earns 1 in each half of them."""
    rng = np.random.default_rng(0)
    for line in range(n):
        x, y = rng.normal(size=2).tolist()
        wanted = int(x > 0) + int(x > 0 and y > 0)
        candidates = [{"id": f"k{arm}", "reward": float(arm == wanted)} for arm in range(3)]
        yield parse_row({"t": 20.0 * line, "context": {"x": x, "y": y}, "candidates": candidates}, line, f"log:{line}")


@pytest.mark.parametrize("text", ["stacked", "fm:batch=8", "nfm", "linear:half_life=1h", "linucb", "random"])
@pytest.mark.parametrize("limit", [None, 101])
def test_decisions_between_which_nothing_changes_may_be_made_together(text: str, limit: int | None) -> None:
    rows, spec = list(decisions(150)), parse(text)
    batch = encode(rows, spec.view(rows))
    together, apart = Simulation(spec, 3, limit), OneByOne(spec, 3, limit)
    for run in (together, apart):
        run.take(batch, None)
    assert together.tally.rows == apart.tally.rows == (limit or 150)
    assert together.tally.curve() == apart.tally.curve()
    assert same_bytes(together._policy.tensors(), apart._policy.tensors())
