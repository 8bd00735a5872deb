"""Per-arm state: a table that is keyed by 64-bit arm keys and grows and shrinks while it is in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Candidates, Examples
from banditmesh.bandits.errors import InvalidTensors
from banditmesh.bandits.policy import PerArmParams, Tensors, tensor

Slots = NDArray[np.int64]
ColumnType = tuple[type[np.generic], tuple[int, ...]]

RETIRE_EVERY = 1024
"""Arms are retired only after each so many examples of a policy's life, so that batch borders change nothing."""


def arm_keys(kind: str, batch: Candidates | Examples) -> NDArray[np.uint64]:
    """uint64[n]: the keys that are the arms, for kind "content", "logic" or "service"."""
    return {"content": batch.contents, "logic": batch.logics, "service": batch.services}[kind]


class ArmTable:
    """Columns with one row (slot) per arm.

    New arms start with zeros. `last_s` (float64, when the arm was last shown) is there in every table. Exported sorted
    by key, so that the order in which arms appeared leaves no trace.
    """

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        self._types: dict[str, ColumnType] = {**columns, "last_s": (np.float64, ())}
        self._columns = {name: np.zeros((0, *shape), dtype) for name, (dtype, shape) in self._types.items()}
        self._keys = np.zeros(0, np.uint64)  # sorted
        self._slots = np.zeros(0, np.int64)  # of the sorted keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, column: str) -> NDArray[Any]:
        """[n_arms, ...]: the column, in slot order, writable after `claim`."""
        return self._columns[column][: len(self)]

    def keys(self) -> NDArray[np.uint64]:
        """uint64[n_arms]: the keys in slot order."""
        keys = np.empty_like(self._keys)
        keys[self._slots] = self._keys
        return keys

    def find(self, keys: NDArray[np.uint64]) -> Slots:
        """int64[n]: the slot of each key, -1 for an arm that is not there."""
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        at = self._keys.searchsorted(keys)
        slots = self._slots.take(at, mode="clip")  # clipped: a key above all others is at the end
        found = self._keys.take(at, mode="clip") == keys
        # count_nonzero, here and elsewhere: in a fifth of the time of all(), which tells where a decision is alone.
        return slots if np.count_nonzero(found) == len(found) else np.where(found, slots, -1)

    def claim(self, keys: NDArray[np.uint64]) -> Slots:
        """int64[n]: the slot of each key, with unseen arms added, and all columns made writable."""
        slots = self.find(keys)
        unseen = slots < 0
        if not np.count_nonzero(unseen):
            self._reserve(len(self))
            return slots
        new = np.unique(keys[unseen])
        self._reserve(len(self) + len(new))
        at = np.searchsorted(self._keys, new)
        size = len(self)
        self._slots = np.insert(self._slots, at, np.arange(size, size + len(new)))
        self._keys = np.insert(self._keys, at, new)
        return self.find(keys)

    def _reserve(self, size: int) -> None:
        for name, column in self._columns.items():
            if size > len(column) or not column.flags.writeable:
                room = size if size <= len(column) else max(size, 2 * len(column), 16)
                grown = np.zeros((room, *column.shape[1:]), column.dtype)
                grown[: len(self)] = column[: len(self)]
                self._columns[name] = grown

    def retire(self, params: PerArmParams, now_s: float) -> NDArray[np.uint64]:
        """Drops the arms that are too old, then the oldest above `max_arms`; returns the dropped keys, sorted."""
        last_s = self["last_s"][self._slots]
        keep = np.ones(len(self), np.bool_)
        if params.retire_after is not None:
            keep &= last_s >= now_s - params.retire_after
        surplus = int(keep.sum()) - params.max_arms
        if surplus > 0:
            # Stable over keys that are sorted: among equally old arms the lower key goes first, on every replica.
            oldest = np.argsort(np.where(keep, last_s, np.inf), kind="stable")
            keep[oldest[:surplus]] = False
        dropped = self._keys[~keep]
        if len(dropped):
            stay = self._slots[keep]
            self._columns = {name: column[stay] for name, column in self._columns.items()}
            self._keys, self._slots = self._keys[keep], np.arange(len(stay))
        return dropped

    def tensors(self) -> Tensors:
        """A copy of keys ("arms") and columns, sorted by key."""
        return {"arms": self._keys.copy(), **{name: self[name][self._slots] for name in self._columns}}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what `tensors` gave, without copying. Raises `InvalidTensors`."""
        keys = tensor(tensors, "arms", np.uint64, (None,))
        if (keys[1:] <= keys[:-1]).any():
            raise InvalidTensors("must rise strictly", field="arms")
        self._columns = {
            name: tensor(tensors, name, dtype, (len(keys), *shape)) for name, (dtype, shape) in self._types.items()
        }
        for name, column in self._columns.items():
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                raise InvalidTensors("holds a number that is not finite", field=name)
        self._keys, self._slots = keys, np.arange(len(keys))


class DecayedSums(ArmTable):
    """Of each arm w = sum w_i and s = sum w_i r_i with w_i = 2^(-age_i / half-life), as of its own last time: columns
    "weight" and "reward"."""

    def __init__(self) -> None:
        super().__init__({"weight": (np.float64, ()), "reward": (np.float64, ())})

    def add(
        self,
        keys: NDArray[np.uint64],
        rewards: NDArray[np.float32],
        times_s: NDArray[np.float64],
        half_life_s: float | None,
    ) -> None:
        """Adds n examples, each arm's one by one in their order."""
        slots = self.claim(keys)
        weights, sums, last_s = self["weight"], self["reward"], self["last_s"]
        for part in segments.rounds(slots):
            at = slots[part]
            now_s = np.maximum(last_s[at], times_s[part])
            left = decay(now_s - last_s[at], half_life_s)
            weight = decay(now_s - times_s[part], half_life_s)
            weights[at] = weights[at] * left + weight
            sums[at] = sums[at] * left + weight * rewards[part]
            last_s[at] = now_s

    def at(self, slots: Slots, now_s: float, half_life_s: float | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Weight and reward of those arms as of a moment: float64[n] each."""
        left = decay(now_s - self["last_s"][slots], half_life_s)
        return self["weight"][slots] * left, self["reward"][slots] * left

    def join(self, other: DecayedSums, half_life_s: float | None) -> None:
        """Adds what another table has summed up: sums of shared arms are decayed to the later of both times."""
        slots = self.claim(other.keys())
        last_s = np.maximum(self["last_s"][slots], other["last_s"])
        mine = decay(last_s - self["last_s"][slots], half_life_s)
        theirs = decay(last_s - other["last_s"], half_life_s)
        for column in ("weight", "reward"):
            self[column][slots] = self[column][slots] * mine + other[column] * theirs
        self["last_s"][slots] = last_s


def spans(seen: int, n: int) -> Iterator[tuple[slice, bool]]:
    """Cuts n examples, after `seen` earlier ones, at the multiples of RETIRE_EVERY; True where one is reached."""
    start = 0
    while start < n:
        stop = min(n, start + RETIRE_EVERY - (seen + start) % RETIRE_EVERY)
        yield slice(start, stop), (seen + stop) % RETIRE_EVERY == 0
        start = stop


def decay(age_s: NDArray[np.float64], half_life_s: float | None) -> NDArray[np.float64]:
    """What is left, in (0, 1], of something that is `age_s` seconds old: 2^(-age / half-life), or 1 without one."""
    return np.ones_like(age_s) if half_life_s is None else np.exp2(-age_s / half_life_s)
