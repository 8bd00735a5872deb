"""What an estimator sees of logged decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditmesh.bandits.errors import InvalidBatch

Floats = NDArray[np.float64]

LARGEST_WEIGHT: Final = 1e9
"""A weight beyond it counts as it: a propensity that small is a fault of the log, not a fact about the policy."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n logged decisions, and what the evaluated policy and a reward model make of them.

    Attributes:
        keys: uint64[n], which decision each row is (its number in the log, say); unique, for halves
            are made by it.
        rewards: float64[n], r, what the shown content earned.
        propensities: float64[n], p in (0, 1], the probability with which the logging policy showed it.
        targets: float64[n], pi in [0, 1], the probability with which the evaluated policy would have.
        expected: float64[n], the reward model's mean under the evaluated policy, sum over candidates a of pi(a) q(a).
        predicted: float64[n], the reward model's q of the shown content.
    """

    keys: NDArray[np.uint64]
    rewards: Floats
    propensities: Floats
    targets: Floats
    expected: Floats
    predicted: Floats

    @classmethod
    def checked(
        cls,
        keys: ArrayLike,
        rewards: ArrayLike,
        propensities: ArrayLike,
        targets: ArrayLike,
        expected: ArrayLike | None = None,
        predicted: ArrayLike | None = None,
    ) -> Self:
        """Rows with every part verified. Without a reward model it predicts 0, with which DR is IPS.

        Raises:
            InvalidBatch: a length differs, a number is not finite, a probability is out of its range; it names which.
        """
        n = len(np.asarray(rewards))
        columns = {"rewards": rewards, "propensities": propensities, "targets": targets}
        columns |= {"expected": np.zeros(n) if expected is None else expected}
        columns |= {"predicted": np.zeros(n) if predicted is None else predicted}
        arrays = {name: np.asarray(column, np.float64) for name, column in columns.items()}
        for name, array in {"keys": np.asarray(keys), **arrays}.items():
            if array.shape != (n,):
                raise InvalidBatch(f"has shape {array.shape}, must be ({n},)", field=name, value=array.shape)
        for name, array in arrays.items():
            _demand(name, array, np.isfinite(array), "is not finite")
        p, pi = arrays["propensities"], arrays["targets"]
        _demand("propensities", p, (p > 0) & (p <= 1), "is not in (0, 1]")
        _demand("targets", pi, (pi >= 0) & (pi <= 1 + 1e-9), "is not in [0, 1]")
        return cls(np.asarray(keys, np.uint64), **arrays)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def weights(self) -> Floats:
        """float64[n]: the importance weights w = pi / p, at most `LARGEST_WEIGHT`."""
        return self.targets / np.maximum(self.propensities, self.targets / LARGEST_WEIGHT)

    def rewarded(self, reward: float) -> Self:
        """The same decisions, each with this reward."""
        return replace(self, rewards=np.full(len(self), reward))

    def part(self, at: NDArray[Any]) -> Self:
        """Some of the rows: bool[n], or numbers."""
        columns = (self.keys, self.rewards, self.propensities, self.targets, self.expected, self.predicted)
        return type(self)(*(column[at] for column in columns))

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Self:
        """All rows of all parts, of which there is at least one."""
        names = ("keys", "rewards", "propensities", "targets", "expected", "predicted")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _demand(name: str, array: Floats, good: NDArray[np.bool_], complaint: str) -> None:
    if not good.all():
        at = int(np.argmin(good))
        raise InvalidBatch(f"{array[at]} at {at} {complaint}", field=name, value=float(array[at]))
