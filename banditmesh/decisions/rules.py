"""What the placement's rules did to a decision, as its row says: `rules`, and `barred`, whom they kept away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from banditmesh.decisions.errors import BrokenRow


class Effect(NamedTuple):
    """What one rule did. Candidates are numbered from 0, those that could be shown first, barred ones behind them.

    Attributes:
        rule: its name.
        adds: who could have been shown only without it.
        drops: who could not have been shown without it.
        shifts: what it adds to the score of each candidate; empty: nothing.
        shares: the same as a share of the score's absolute value; empty: nothing.
    """

    rule: str
    adds: Sequence[int]
    drops: Sequence[int]
    shifts: Sequence[float]
    shares: Sequence[float]


class Ruled(NamedTuple):
    """What rules did.

    Attributes:
        free: how many candidates could be shown; those behind them were barred.
        effects: of each rule that did anything.
    """

    free: int
    effects: Sequence[Effect]


def rules_of(row: Mapping[str, Any], free: int, where: str) -> Ruled | None:
    """What a row says of rules; None: nothing.

    Args:
        row: the JSON object.
        free: how many candidates it has, without the barred ones.
        where: file and line, for messages.

    Raises:
        BrokenRow: names `where`, the field and the value.
    """
    listed, barred = row.get("rules"), row.get("barred") or []
    if listed is None:
        return None
    if not isinstance(barred, list) or not all(isinstance(each, dict) for each in barred):
        raise BrokenRow(where, "must be a list of candidates", field="barred", value=barred)
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise BrokenRow(where, "must be a list of what each rule did", field="rules", value=listed)
    n = free + len(barred)
    return Ruled(free, [_effect(each, n, where, f"rules[{at}]") for at, each in enumerate(listed)])


def _effect(given: Mapping[str, Any], n: int, where: str, field: str) -> Effect:
    rule = given.get("rule")
    if not isinstance(rule, str):
        raise BrokenRow(where, "must be a rule's name", field=f"{field}.rule", value=rule)
    adds, drops, shifts, shares = ([*(given.get(name) or ())] for name in ("adds", "drops", "shifts", "shares"))
    for name, numbers in (("adds", adds), ("drops", drops)):
        if not all(isinstance(each, int) and 0 <= each < n for each in numbers):
            raise BrokenRow(where, f"must be numbers of candidates, from 0 to {n - 1}", field=f"{field}.{name}")
    for name, amounts in (("shifts", shifts), ("shares", shares)):
        if len(amounts) not in (0, n) or not all(isinstance(each, int | float) for each in amounts):
            raise BrokenRow(where, f"must be {n} numbers, one a candidate, or none", field=f"{field}.{name}")
    return Effect(rule, adds, drops, shifts, shares)
