"""One row of a decision log: validated, its features hashed, every fault named by its field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from banditmesh.bandits import hashing
from banditmesh.decisions.errors import BrokenRow

Features = dict[str, tuple[tuple[int, float], ...]]
"""By name: (feature id, value) once for a string, a number or a boolean, once a member for a list of strings."""

_LARGEST: Final = float(np.finfo(np.float32).max)
_categorical = lru_cache(maxsize=1 << 18)(lambda name, value: ((hashing.categorical_id(name, value), 1.0),))
_numeric_id = lru_cache(maxsize=1 << 16)(hashing.numeric_id)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What could have been shown. `reward`: what it would have earned, in a log of full information; else None."""

    id: str
    service: str
    logic: str
    features: Features
    reward: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """One row.

    Attributes:
        line: its number in the file, from 1.
        where: file and line, for messages.
        time_s: seconds since 1970; 0 when the log has no times.
        user: None when the log has no users.
        context: features that all candidates share.
        shown: index of the candidate that was shown; None in a row of full information.
        propensity: the probability with which it was shown; None when it was not logged.
        reward: what it earned; None in a row of full information.
    """

    line: int
    where: str
    time_s: float
    user: str | None
    context: Features
    candidates: tuple[Candidate, ...]
    shown: int | None
    propensity: float | None
    reward: float | None

    @property
    def has_all_rewards(self) -> bool:
        """Whether every candidate carries its own reward."""
        return all(candidate.reward is not None for candidate in self.candidates)


def parse(row: object, line: int, where: str) -> Decision:
    """The decision that a JSON object (or a Parquet row as one) describes. Keys beyond the format are passed over.

    Raises:
        BrokenRow: names `where`, the field and the value.
    """
    if not isinstance(row, dict):
        raise BrokenRow(where, "a row is a JSON object", value=row)
    listed = row.get("candidates")
    if not isinstance(listed, list) or not listed:
        raise BrokenRow(where, "must be a list with at least one candidate", field="candidates", value=listed)
    candidates = tuple(_candidate(each, f"candidates[{at}]", where) for at, each in enumerate(listed))
    shown = row.get("shown")
    if shown is None and len(candidates) == 1:
        shown = 0
    if shown is not None and (type(shown) is not int or not 0 <= shown < len(candidates)):
        raise BrokenRow(where, f"must be an index from 0 to {len(candidates) - 1}", field="shown", value=shown)
    propensity = _number(row, "propensity", where)
    if propensity is not None and not 0 < propensity <= 1:
        raise BrokenRow(where, "must be above 0 and at most 1", field="propensity", value=propensity)
    reward = _number(row, "reward", where)
    if reward is None and shown is not None:
        reward = candidates[shown].reward
    if reward is not None and shown is None:
        raise BrokenRow(where, "is missing: which of the candidates earned the reward?", field="shown")
    if reward is None and any(candidate.reward is None for candidate in candidates):
        raise BrokenRow(where, "is missing: of what was shown, or of every candidate", field="reward")
    return Decision(
        line,
        where,
        _number(row, "t", where) or 0.0,
        _text(row, "user", "user", where),
        _features(row.get("context"), "context", where),
        candidates,
        shown,
        propensity,
        reward,
    )


def _candidate(given: object, field: str, where: str) -> Candidate:
    if not isinstance(given, dict):
        raise BrokenRow(where, "must be an object", field=field, value=given)
    identity = _text(given, "id", f"{field}.id", where)
    if identity is None:
        raise BrokenRow(where, "is missing", field=f"{field}.id")
    return Candidate(
        identity,
        _text(given, "service", f"{field}.service", where) or "",
        _text(given, "logic", f"{field}.logic", where) or "",
        _features(given.get("features"), f"{field}.features", where),
        _number(given, "reward", where, f"{field}.reward"),
    )


def _text(row: Mapping[str, Any], key: str, field: str, where: str) -> str | None:
    """A name: a string, or an integer, which counts as its digits."""
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise BrokenRow(where, "must be a string", field=field, value=value)


def _number(row: Mapping[str, Any], key: str, where: str, field: str | None = None) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    # NaN is within no range; an integer of any size compares exactly.
    if not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise BrokenRow(where, "must be a finite number", field=field or key, value=value)
    return float(value)


def _features(given: object, field: str, where: str) -> Features:
    """null is the same as absence, both for a feature and for all of them."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BrokenRow(where, "must be an object of features by name", field=field, value=given)
    found: Features = {}
    for name, value in given.items():
        kind = type(value)
        if kind is str:
            found[name] = _categorical(name, value)
        elif (kind is float or kind is int) and -_LARGEST <= value <= _LARGEST:
            found[name] = ((_numeric_id(name), float(value)),)
        elif kind is bool:
            found[name] = _categorical(name, "true" if value else "false")
        elif kind is list and all(type(each) is str for each in value):
            found[name] = tuple(_categorical(name, each)[0] for each in dict.fromkeys(value))
        elif value is not None:
            message = "must be a string, a finite number, true, false or a list of strings"
            raise BrokenRow(where, message, field=f"{field}.{name}", value=value)
    return found
