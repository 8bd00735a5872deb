"""The probabilities of another policy that a row carries: a list, one a candidate; or one number, of what was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from banditmesh.decisions.errors import BrokenRow

_ROUNDED = 1e-3


def targets(
    row: Mapping[str, Any], listed: Sequence[Mapping[str, Any]], shown: int | None, key: str, where: str
) -> list[float | None]:
    """n probabilities; None for candidates of which the row does not say.

    Args:
        row: has a list or a number under the key; or else each candidate has a number there.
        listed: its n candidates.
        shown: index of the one that was shown.
        key: the column.
        where: file and line, for messages.

    Raises:
        BrokenRow: there is nothing under the key, or it is no probability, or those of all do not add up to 1.
    """
    n, value = len(listed), row.get(key)
    if value is None and any(key in each for each in listed):
        value = [each.get(key) for each in listed]
    if value is None:
        hint = f"the row has {', '.join(row) or 'nothing'}"
        raise BrokenRow(where, "is missing, the target column", field=key, hint=hint)
    if isinstance(value, list):
        if len(value) != n:
            raise BrokenRow(where, f"has {len(value)} probabilities for {n} candidates", field=key, value=value)
        found = [_probability(each, f"{key}[{at}]", where) for at, each in enumerate(value)]
        if abs(sum(found) - 1) > _ROUNDED:
            raise BrokenRow(where, f"adds up to {sum(found):g}, must be 1", field=key, value=value)
        return list(found)
    alone: list[float | None] = [None] * n
    if shown is None:
        raise BrokenRow(where, "must be a list, for the row does not say what was shown", field=key, value=value)
    alone[shown] = _probability(value, key, where)
    return alone


def _probability(value: object, field: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BrokenRow(where, "must be a probability, from 0 to 1", field=field, value=value)
    return float(value)
