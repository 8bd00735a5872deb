"""Which policy to take, of those that were replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from banditmesh.bandits.registry import DEFAULT

COMPARED: Final = (DEFAULT, "fm", "linear", "linucb:alpha=0.1", "popularity", "random")
"""What is compared when no policy is named: the default of a placement, its rivals, and what they must beat."""


def recommended(found: Sequence[Mapping[str, Any]]) -> str:
    """A sentence: the policy of the highest reward, and how far it is ahead of the next one.

    Args:
        found: reports, at least one, as `report` makes them.
    """
    known = sorted((each for each in found if each["reward"] is not None), key=lambda each: -each["reward"])
    if not known:
        return "No policy has earned anything that could be measured: the log is too short."
    first = known[0]
    said = f"I would take {first['policy']}: it has the highest reward per decision, {first['reward']:.5g}"
    if len(known) == 1:
        return f"{said}."
    second, lower = known[1], first["interval"][0]
    if lower is not None and lower > second["reward"]:
        return f"{said}, and the next one, {second['policy']} with {second['reward']:.5g}, lies below its interval."
    return (
        f"{said}, but {second['policy']} with {second['reward']:.5g} lies within its interval: the log cannot tell "
        "them apart; more rows or more --seeds might."
    )
