"""Features as a log says them, and the ids and values that they are for a policy.

A string is a category, a number is numeric, true and false are the categories of these names, a list of strings is a
set of categories. The ids are those of the engine (`banditmesh.bandits.hashing`). A feature that was hashed before it
was logged has ``#`` and its id for a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from banditmesh.bandits import hashing
from banditmesh.bandits.batch import SparseRows
from banditmesh.decisions.errors import BrokenRow
from banditmesh.decisions.known import KEPT, Known

Features = Mapping[str, Any]
"""By name: a string, a finite number, a boolean or a list of strings. Kept as they were read: objects that hold nothing
but strings and numbers cost the garbage collector nothing, whereas pairs of ids and values took two thirds of the time
that a log of many candidates was read in."""

LARGEST: Final = float(np.finfo(np.float32).max)
_STRINGS: Final = frozenset((str,))
_NUMBERS: Final = frozenset((int, float))
_HASHED: Final = re.compile("#([0-9]{1,10})")


class _Numeric(dict[str, int]):
    """The ids of numeric fields, and of those that are ids already, at most `KEPT` of them."""

    def __missing__(self, field: str) -> int:
        if len(self) >= KEPT:
            self.clear()
        hashed = _HASHED.fullmatch(field)
        self[field] = found = int(hashed[1]) if hashed and int(hashed[1]) < 1 << 32 else hashing.numeric_id(field)
        return found


_categorical: Final = Known(hashing.categorical_id)
_numeric: Final = _Numeric()


def checked(given: object, where: str, field: str, at: int = 0) -> Features:
    """The features of a row; null is absence, for one of them and for all.

    Args:
        given: what stands there.
        where: the row.
        field: where in the row, with {} for `at`. Put together for a message alone.
        at: which candidate.

    Raises:
        BrokenRow: names the feature and its value.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BrokenRow(where, "must be an object of features by name", field=field.format(at), value=given)
    for value in given.values():
        kind = type(value)
        # NaN is within no range; an integer of any size compares exactly.
        if kind is not str and not ((kind is float or kind is int) and -LARGEST <= value <= LARGEST):
            return _present(given, where, field.format(at))
    return given


def _present(given: dict[str, Any], where: str, field: str) -> Features:
    for name, value in given.items():
        kind = type(value)
        if not (
            value is None
            or kind is str
            or kind is bool
            or (kind is list and all(type(each) is str for each in value))
            or ((kind is float or kind is int) and -LARGEST <= value <= LARGEST)
        ):
            message = f"must be a string, a finite number of at most {LARGEST:.1e}, true, false or a list of strings"
            raise BrokenRow(where, message, field=f"{field}.{name}", value=value)
    return {name: value for name, value in given.items() if value is not None}


def rows(listed: Sequence[Features]) -> SparseRows:
    """One row for each of these: an entry for a string, a number or a boolean, one a member for a list."""
    found = _columns(listed)
    if found is not None:
        return found
    ends = [0]
    ids: list[int] = []
    values: list[float] = []
    for features in listed:
        if features:
            add(features, ids, values)
        ends.append(len(ids))
    return SparseRows(np.array(ends, np.int64), np.array(ids, np.uint32), np.array(values, np.float32))


def _columns(listed: Sequence[Features]) -> SparseRows | None:
    """As `rows`, column by column; None unless all have the same names, and each name strings or numbers alone.

    That is how tables are, and it takes a third of the time.
    """
    names = tuple(listed[0])
    width = len(names)
    if not width or {*map(len, listed)} != {width}:
        return SparseRows.empty(len(listed)) if not any(listed) else None
    ids = np.empty((len(listed), width), np.uint32)
    values = np.ones(ids.shape, np.float32)
    for at, name in enumerate(names):
        try:
            column = [features[name] for features in listed]
        except KeyError:
            return None
        kinds = {*map(type, column)}
        if kinds == _STRINGS:
            ids[:, at] = list(map(_categorical[name].__getitem__, column))
        elif kinds <= _NUMBERS:
            ids[:, at] = _numeric[name]
            values[:, at] = column
        else:
            return None
    return SparseRows(np.arange(len(listed) + 1) * width, ids.ravel(), values.ravel())


def add(features: Features, ids: list[int], values: list[float]) -> None:
    """Appends the id and the value of each feature: one for a string, a number or a boolean, one a member of a list."""
    for name, value in features.items():
        kind = type(value)
        if kind is str:
            ids.append(_categorical[name][value])
            values.append(1.0)
        elif kind is float or kind is int:
            ids.append(_numeric[name])
            values.append(value)
        elif kind is bool:
            ids.append(_categorical[name]["true" if value else "false"])
            values.append(1.0)
        else:
            members = dict.fromkeys(value)
            ids.extend([_categorical[name][each] for each in members])
            values.extend([1.0] * len(members))
