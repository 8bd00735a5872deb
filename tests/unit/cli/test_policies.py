"""``banditmesh policies``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from banditmesh.bandits.registry import EXPLORATIONS, POLICIES


def test_every_policy_and_exploration_is_listed_with_each_parameter_explained(run: Callable[..., Any]) -> None:
    ended = run("policies")
    assert ended.code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in ended.out.splitlines()]
    names = {row[0] for row in cells if row and row[0]}
    assert names == {*POLICIES, *EXPLORATIONS}
    parameters = [row for row in cells if row and not row[0] and row[1]]
    wanted = [
        *(name for kind in POLICIES.values() for name in kind.Params.model_fields),
        *(name for kind in EXPLORATIONS.values() for name in kind.model_fields),
    ]
    assert [row[1] for row in parameters] == wanted
    assert all(row[3] for row in parameters)
