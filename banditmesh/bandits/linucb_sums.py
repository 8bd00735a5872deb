"""What `linucb` and `linucb_hybrid` share: parameters, and sums for each arm with what scoring needs of them.

Learning adds to an arm's sums and marks the arm as stale; what is derived of the sums follows when the arm is next
scored or saved.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from banditmesh.bandits.arms import ArmTable, ColumnType, Slots, arm_keys, spans
from banditmesh.bandits.batch import Examples, require_finite
from banditmesh.bandits.policy import PerArmParams, Tensors, tensor
from banditmesh.lengths import MAX_NAME_BYTES

Floats = NDArray[np.float64]
MOST_DENSE: Final = 256


class ArmSumsParams(PerArmParams):
    """Parameters that `linucb` and `linucb_hybrid` share."""

    arm: Literal["content", "logic", "service"] = Field(default="content", description="What has a model of its own.")
    dimension: int = Field(
        default=32, ge=2, le=256, description="Length d of the projected feature vector, the bias coordinate included."
    )
    ridge: float = Field(default=1.0, gt=0, description="Precision of the prior on each coefficient.")
    prior_reward: float | None = Field(
        default=None,
        description="Expected reward of an arm before anything is known of it; null: 0.5, or 0 when `dense` is given.",
    )
    dense: tuple[str, ...] = Field(
        default=(),
        max_length=MOST_DENSE,
        description="Numeric fields that are the vector as they stand, instead of the hashed projection of all fields: "
        "no bias, nothing else counts. Such as [x0..x9], which is x0 to x9.",
    )

    @field_validator("dense", mode="before")
    @classmethod
    def _ranges_are_written_out(cls, given: object) -> object:
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list | tuple):
            return given
        # One too many is enough to be refused; a range may name billions.
        return list(islice((name for each in names for name in expand(each)), MOST_DENSE + 1))

    @field_validator("dense")
    @classmethod
    def _names_are_different(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a field stands twice")
        return names

    @property
    def prior(self) -> float:
        """The prior reward in force, where it is no matter of the rewards."""
        if self.prior_reward is None:
            return 0.0 if self.dense else 0.5
        return self.prior_reward


_MOST_RANGE: Final = 2 * MAX_NAME_BYTES + 2
"""Characters of a range: of longer ones the search for its parts takes time with their square."""
_RANGE = re.compile(r"(.*?)(\d+)\.\.\1(\d+)")


def expand(name: object) -> Iterator[object]:
    """`x0..x9` as its ten names; anything else as it is.

    Raises:
        ValueError: it counts down.
    """
    found = _RANGE.fullmatch(name) if isinstance(name, str) and len(name) <= _MOST_RANGE else None
    if found is None:
        yield name
        return
    first, last = int(found[2]), int(found[3])
    if first > last:
        raise ValueError(f"{name} counts down; write the smaller number first")
    yield from (f"{found[1]}{number}" for number in range(first, last + 1))


class ArmSums(ABC):
    """The arms with their sums, and the policy's clock.

    Attributes:
        params: of the policy.
    """

    params: ArmSumsParams

    @property
    def _centre(self) -> float:
        """What is taken off each reward before it is added to the sums."""
        return self.params.prior

    def _start_with(self, columns: Mapping[str, ColumnType]) -> None:
        self._arms = ArmTable(columns)
        self._stale = np.zeros(0, np.bool_)  # bool[n_arms]: what is derived of an arm is behind its sums
        self._seen = 0
        self._now_s = 0.0

    @abstractmethod
    def _add(self, slots: Slots, centred: Floats, times_s: Floats, *projected: Floats) -> None:
        """Adds n examples to the sums.

        Args:
            slots: int64[n], their arms.
            centred: float64[n], their rewards less `_centre`.
            times_s: float64[n].
            projected: float64[n, d] each, their projected features.
        """

    @abstractmethod
    def _retire(self) -> None:
        """Drops the arms that are too old or too many."""

    def _learn(self, examples: Examples, *projected: Floats) -> None:
        """Takes in the examples, whose projected features are `projected`: float64[n, d] each."""
        # In float64 also the square of the largest float32 is finite, so these checks are enough for the sums.
        require_finite(features=projected[0], rewards=examples.rewards, times_s=examples.times_s)
        keys = arm_keys(self.params.arm, examples)
        centred = examples.rewards.astype(np.float64) - self._centre
        for span, may_retire in spans(self._seen, len(examples)):
            parts = (each[span] for each in projected)
            self._add(self._claim(keys[span]), centred[span], examples.times_s[span], *parts)
            if may_retire:
                self._retire()
        self._seen += len(examples)

    def _claim(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """int64[n]: the slots of these arms; those of new ones are stale."""
        known = len(self._arms)
        slots = self._arms.claim(keys)
        if len(self._arms) > known:
            self._stale = np.append(self._stale, np.ones(len(self._arms) - known, np.bool_))
        return slots

    def _saved(self) -> Tensors:
        """The arms' tensors, "examples" and "now_s"."""
        clock = {"examples": np.array([self._seen], np.int64), "now_s": np.array([self._now_s])}
        return {**self._arms.tensors(), **clock}

    def _restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what `_saved` gave; nothing is stale. Raises `InvalidTensors`."""
        self._arms.restore(tensors)
        self._stale = np.zeros(len(self._arms), np.bool_)
        self._seen = int(tensor(tensors, "examples", np.int64, (1,))[0])
        self._now_s = float(tensor(tensors, "now_s", np.float64, (1,))[0])
