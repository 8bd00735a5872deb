"""An attribute of the contents as a column: what rules look at, without a string in sight when a request comes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing
from banditmesh.contracts.provider.v1.provider_pb2 import Attribute

MOST_VALUES: Final = 16
"""Of one content that are looked at when contents are compared or counted; whether it has a value looks at all."""
_FIRST_ROWS: Final = 1024


def texts(attribute: Attribute) -> tuple[str, ...]:
    """The values of an attribute as texts, each once; of a number its shortest text: 2024, 0.5."""
    if attribute.HasField("number"):
        return (f"{attribute.number:.15g}",)
    return tuple(dict.fromkeys(attribute.values))


def label_key(attribute: str, value: str) -> int:
    """What an impression is counted by, for a frequency cap on values of an attribute."""
    return hashing.key64(f"{attribute}={value}")


class AttributeColumn:
    """Each row holds the number of its content's set of values; equal sets have one number, no value has 0.

    What is worked out of a set (has it this value?) is worked out once, when the set is first seen.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._numbers = np.zeros(_FIRST_ROWS, np.int32)
        self._forget()

    def _forget(self) -> None:
        self._sets: list[tuple[str, ...]] = []
        self._number_of: dict[tuple[str, ...], int] = {}
        self._keys = np.zeros((16, MOST_VALUES), np.uint64)
        self._having: dict[frozenset[str], NDArray[np.bool_]] = {}
        self._number(())

    def write(self, row: int, values: tuple[str, ...]) -> None:
        """Put a content's values into a row."""
        if row >= len(self._numbers):
            longer = np.zeros(max(row + 1, 2 * len(self._numbers)), np.int32)
            longer[: len(self._numbers)] = self._numbers
            self._numbers = longer
        self._numbers[row] = self._number(values)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep these rows alone (int64[n], ascending), numbered anew from 0, and the sets that they have."""
        sets, numbers = self._sets, self._numbers.take(rows)
        self._forget()
        used, places = np.unique(numbers, return_inverse=True)
        renumbered = np.array([self._number(sets[number]) for number in used.tolist()], np.int32)
        self._numbers[: len(rows)] = renumbered[places] if len(rows) else 0

    def values(self, row: int) -> tuple[str, ...]:
        """The values of a row."""
        return self._sets[int(self._numbers[row])]

    def keys(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """``uint64[n, most values]``: a key of each value of the rows (int64[n]); 0 where there is none. As narrow as
        these rows allow, one column at least."""
        found = self._keys.take(self._numbers.take(rows), axis=0)
        used = np.flatnonzero(found.any(axis=0))
        return found[:, : used[-1] + 1 if len(used) else 1]

    def has(self, rows: NDArray[np.int64], values: Collection[str]) -> NDArray[np.bool_]:
        """``bool[n]``: which rows (int64[n]) have one of these values."""
        wanted = frozenset(values)
        known = self._having.get(wanted, np.zeros(0, np.bool_))
        if len(known) < len(self._sets):
            new = [not wanted.isdisjoint(each) for each in self._sets[len(known) :]]
            known = self._having[wanted] = np.concatenate([known, np.array(new, np.bool_)])
        return known.take(self._numbers.take(rows))

    def some(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """``bool[n]``: which rows (int64[n]) have any value."""
        found: NDArray[np.bool_] = self._numbers.take(rows) > 0
        return found

    def _number(self, values: tuple[str, ...]) -> int:
        number = self._number_of.get(values)
        if number is None:
            number = self._number_of[values] = len(self._sets)
            self._sets.append(values)
            if number == len(self._keys):
                self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
            keys = [label_key(self.name, value) for value in values[:MOST_VALUES]]
            self._keys[number, : len(keys)] = keys
        return number


def columns(names: Sequence[str]) -> dict[str, AttributeColumn]:
    """Empty columns, by the attributes' names."""
    return {name: AttributeColumn(name) for name in names}
