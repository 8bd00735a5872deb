"""One row of a decision log: validated, every fault named by its field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from math import isnan
from typing import Any, Final, NamedTuple

from banditmesh.bandits.registry import MOST
from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.features import LARGEST, Features, checked
from banditmesh.decisions.rules import Ruled, rules_of
from banditmesh.decisions.target import targets
from banditmesh.lengths import END_S, FIRST_S
from banditmesh.reactions import KINDS

_OBJECTS: Final = frozenset((dict,))
_STRINGS: Final = frozenset((str,))
_NUMERIC: Final = (float, int, bool)
_NONE: Final[Features] = {}
_NUMBERS: Final = frozenset((int, float))
_REACTIONS: Final = ", ".join(KINDS)
LARGEST_REWARD: Final = MOST
"""No policy has a prior reward beyond it, and the mean of a log's rewards becomes one."""
_TIME: Final = "must be seconds since 1970, or a time like 2026-11-22T10:30:00Z"


class Candidate(NamedTuple):
    """What could have been shown. `reward`: what it would have earned, in a log of full information; else None."""

    id: str
    service: str
    logic: str
    features: Features
    reward: float | None


class Decision(NamedTuple):
    """One row, its n candidates field by field.

    A tuple of flat sequences, not a frozen dataclass with an object for each candidate: making and collecting those
    took longer than reading the file and checking it.

    Attributes:
        line: its number in the file, from 1.
        where: file and line, for messages.
        time_s: seconds since 1970; 0 when the log has no times.
        user: None when the log has no users.
        context: features that all candidates share.
        ids, services, logics: n names each; a service or a logic that was not given is empty.
        features: n candidates' own.
        outcomes: n rewards that the candidates would have earned, each may be None.
        shown: index of the candidate that was shown; None in a row of full information.
        propensity: the probability with which it was shown; None when it was not logged.
        reward: what it earned; None in a row of full information.
        targets: n probabilities with which another policy would show the candidates, each may be None; None for all
            unless they were asked for.
        reactions: what users did with what was shown, such as click and mute; None when the log does not say.
        listed: which ranked list the row is a position of; None: of none that the log can name.
        position: the place on that list, from 0; None when it is not logged.
        ruled: what rules did, where that was asked for and is logged. Then the n candidates are those that could be
            shown, and behind them those that a rule barred.
        fallback: whether the placement's fallback answered, as it would have under any policy.
    """

    line: int
    where: str
    time_s: float
    user: str | None
    context: Features
    ids: Sequence[str]
    services: Sequence[str]
    logics: Sequence[str]
    features: Sequence[Features]
    outcomes: Sequence[float | None]
    shown: int | None
    propensity: float | None
    reward: float | None
    targets: Sequence[float | None] | None
    reactions: Sequence[str] | None
    listed: str | None
    position: int | None
    ruled: Ruled | None
    fallback: bool

    @property
    def candidates(self) -> list[Candidate]:
        """One by one."""
        return list(map(Candidate, self.ids, self.services, self.logics, self.features, self.outcomes))

    @property
    def has_all_rewards(self) -> bool:
        """Whether every candidate carries its own reward."""
        return None not in self.outcomes


def parse(row: object, line: int, where: str, target: str | None = None, *, ruled: bool = False) -> Decision:
    """The decision that a JSON object (or a Parquet row as one) describes. Keys beyond the format are passed over.

    Args:
        row: the object.
        line: its number.
        where: file and line, for messages.
        target: the key under which the row has the probabilities of another policy; None: they are not asked for.
        ruled: whether what the placement's rules did is asked for.

    Raises:
        BrokenRow: names `where`, the field and the value.
    """
    if not isinstance(row, dict):
        raise BrokenRow(where, "a row is a JSON object, one a line", value=row)
    listed = row.get("candidates")
    if not isinstance(listed, list) or not listed:
        message = "must be a list with at least one candidate"
        raise BrokenRow(where, message, field="candidates", value=listed, hint=_keys(row) if listed is None else None)
    if {*map(type, listed)} != _OBJECTS:
        at = next(at for at, each in enumerate(listed) if type(each) is not dict)
        raise BrokenRow(where, "must be an object", field=f"candidates[{at}]", value=listed[at])
    free = len(listed)
    rules = rules_of(row, free, where) if ruled else None
    if rules is not None:
        listed = [*listed, *(row.get("barred") or ())]
    n = len(listed)
    given: set[str] = set().union(*listed)
    outcomes = _outcomes(listed, where) if "reward" in given else [None] * n
    shown = row.get("shown")
    if shown is None and free == 1:
        shown = 0
    if shown is not None and (type(shown) is not int or not 0 <= shown < free):
        raise BrokenRow(where, f"must be an index from 0 to {free - 1}", field="shown", value=shown)
    propensity = _number(row, "propensity", where)
    if type(row.get("propensity")) is bool:
        raise BrokenRow(where, "must be a number above 0 and at most 1", field="propensity", value=row["propensity"])
    if propensity is not None and not 0 < propensity <= 1:
        raise BrokenRow(where, "must be above 0 and at most 1", field="propensity", value=propensity)
    reward = _reward(row, where)
    if reward is None and shown is not None:
        reward = outcomes[shown]
    if reward is not None and shown is None:
        raise BrokenRow(where, "is missing: which of the candidates earned the reward?", field="shown")
    if reward is None and None in outcomes:
        message = "is missing: of what was shown, or of every candidate"
        raise BrokenRow(where, message, field="reward", hint=_keys(row))
    user, time_s, position = _text(row, "user", where), _time(row, where), _position(row, where)
    ids = _ids(listed, where)
    services = _names(listed, "service", where) if "service" in given else [""] * n
    if len({*ids}) < n:
        _demand_different(services, ids, where)
    return Decision._make(  # in one step; the constructor takes them one by one
        (
            line,
            where,
            time_s,
            user,
            checked(row.get("context"), where, "context"),
            ids,
            services,
            _names(listed, "logic", where) if "logic" in given else [""] * n,
            _features(listed, where) if "features" in given else [_NONE] * n,
            outcomes,
            shown,
            propensity,
            reward,
            None if target is None else targets(row, listed, shown, target, where),
            _reactions(row, where),
            None if position is None else _list(row, user, time_s, where),
            position,
            rules,
            _is_fallback(row),
        )
    )


def _demand_different(services: Sequence[str], ids: Sequence[str], where: str) -> None:
    """Raises BrokenRow when a content is a candidate twice: its propensity would be that of two."""
    seen: set[tuple[str, str]] = set()
    for at, content in enumerate(zip(services, ids, strict=True)):
        if content in seen:
            raise BrokenRow(where, "is a candidate already", field=f"candidates[{at}].id", value=content[1])
        seen.add(content)


def _keys(row: Mapping[str, Any]) -> str:
    """What the row has instead of what it lacks: most often the same under another name."""
    return f"the row has {', '.join(row) or 'nothing'}"


# Each of these takes one field of all candidates: by the kinds that occur it sees that there is nothing to do, and only
# else looks at one candidate after the other.


def _ids(listed: list[dict[str, Any]], where: str) -> list[str]:
    found: list[Any] = [each.get("id") for each in listed]
    if {*map(type, found)} == _STRINGS:
        return found
    if None in found:
        raise BrokenRow(where, "is missing", field=f"candidates[{found.index(None)}].id")
    return [_text(each, "id", where, at) or "" for at, each in enumerate(listed)]


def _names(listed: list[dict[str, Any]], key: str, where: str) -> list[str]:
    found: list[Any] = [each.get(key) for each in listed]
    if {*map(type, found)} == _STRINGS:
        return found
    return [_text(each, key, where, at) or "" for at, each in enumerate(listed)]


def _features(listed: list[dict[str, Any]], where: str) -> list[Features]:
    return [checked(each.get("features"), where, "candidates[{}].features", at) for at, each in enumerate(listed)]


def _outcomes(listed: list[dict[str, Any]], where: str) -> list[float | None]:
    found: list[Any] = [each.get("reward") for each in listed]
    # A sum is NaN when one of its terms is, which the least and the largest need not be.
    if (
        _NUMBERS.issuperset(map(type, found))
        and -LARGEST_REWARD <= min(found) <= max(found) <= LARGEST_REWARD
        and not isnan(sum(found))
    ):
        return found
    return [_reward(each, where, at) for at, each in enumerate(listed)]


def _text(given: Mapping[str, Any], key: str, where: str, at: int | None = None) -> str | None:
    """A name, of the row or of its candidate `at`: a string, or an integer, which counts as its digits."""
    value = given.get(key)
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise BrokenRow(where, "must be a string", field=_field(key, at), value=value)


def _number(given: Mapping[str, Any], key: str, where: str, at: int | None = None) -> float | None:
    value = given.get(key)
    if value is None:
        return None
    # NaN is within no range; an integer of any size compares exactly.
    if type(value) not in _NUMERIC or not -LARGEST <= value <= LARGEST:
        raise BrokenRow(where, "must be a finite number", field=_field(key, at), value=value)
    return float(value)


def _reward(given: Mapping[str, Any], where: str, at: int | None = None) -> float | None:
    reward = _number(given, "reward", where, at)
    if reward is not None and abs(reward) > LARGEST_REWARD:
        message = f"must be a number from -{LARGEST_REWARD:g} to {LARGEST_REWARD:g}"
        raise BrokenRow(where, message, field=_field("reward", at), value=reward)
    return reward


def _reactions(row: Mapping[str, Any], where: str) -> Sequence[str] | None:
    value = row.get("reactions")
    if value is None:
        return None
    if not isinstance(value, list):
        raise BrokenRow(where, f"must be a list, of {_REACTIONS}", field="reactions", value=value)
    for at, each in enumerate(value):
        if not isinstance(each, str) or each not in KINDS:
            raise BrokenRow(where, f"must be one of {_REACTIONS}", field=f"reactions[{at}]", value=each)
    return value


def _is_fallback(row: Mapping[str, Any]) -> bool:
    """By the row's `origin`, as engines say it; one that says something else, or nothing, is a policy's."""
    origin = row.get("origin")
    return isinstance(origin, str) and origin.startswith("fallback_")


def _position(row: Mapping[str, Any], where: str) -> int | None:
    value = row.get("position")
    if value is None or (type(value) is int and value >= 0):
        return value
    raise BrokenRow(where, "must be an integer from 0", field="position", value=value)


def _list(row: Mapping[str, Any], user: str | None, time_s: float, where: str) -> str | None:
    """As the row names it; without a name, what one user was shown at one time is one list."""
    name = _text(row, "list", where)
    return name if name is not None or user is None or not time_s else f"{user}@{time_s}"


def _time(row: Mapping[str, Any], where: str) -> float:
    """Seconds since 1970, as a number or by ISO 8601; a time without a zone is UTC. 0 when the row has none."""
    value = row.get("t")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise BrokenRow(where, _TIME, field="t", value=value) from None
    if type(value) is date:  # of a Parquet column, as a time without one is a text's
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):  # of a Parquet column too
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if value is None:
        return 0.0
    if type(value) not in _NUMBERS:
        raise BrokenRow(where, _TIME, field="t", value=value)
    if not FIRST_S <= value < END_S:
        thousandth = "; milliseconds are divided by 1000" if FIRST_S <= value / 1000 < END_S else ""
        raise BrokenRow(where, f"{_TIME}, of the years 1 to 9999{thousandth}", field="t", value=value)
    return float(value)


def _field(key: str, at: int | None) -> str:
    return key if at is None else f"candidates[{at}].{key}"
