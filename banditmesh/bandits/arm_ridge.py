"""A ridge regression for each arm, over the features that most examples have, as one part of `stacked`.

It differs from `linucb` in what makes a model good before anybody has tuned it:

- A feature has a coordinate of its own, with no collisions, as long as it is in one example of 32; crosses have none,
  for the arms are apart anyway. Features that are rarer (a user) would cost every arm a row for nothing.
- Coordinates are standardised: the prior is on (x - centre) / unit, from the mean and the deviation of what was seen,
  both rounded coarsely so that they hardly ever change. So it makes no difference in which unit a field comes. The
  sums are of x as it is; centre and unit enter when they are read out, and are a function of sums themselves.
- Arms that nobody has seen start from the mean reward of all.

For each arm: A = T (sum x x^T) T^T + L, theta = A^-1 T sum (r - m) x, with T the standardisation, L the diagonal prior
precision, m the mean reward. Beside mean and variance stands what part of the prior's variance the arm's examples have
resolved, 1 - (z^T A^-1 z) / (z^T L^-1 z): 0 for an unseen arm, near 1 for a context that it knows well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments, triangle
from banditmesh.bandits.arms import ArmTable, Slots
from banditmesh.bandits.batch import SparseRows
from banditmesh.bandits.errors import InvalidTensors
from banditmesh.bandits.gaussian import whitening
from banditmesh.bandits.hashing import CROSSED
from banditmesh.bandits.policy import PerArmParams, Tensors, tensor

Floats = NDArray[np.float64]

_RAREST = 1.0 / 32.0
_FIRST_SWEEP = 16
_MOST_UNITS = 10.0
_FORGOTTEN = 1e-100
"""Of so small a part of an example nothing is remembered: units out of what is left would not be finite."""
_VARIES = 1e-6
"""A feature whose variance is below this share of its squared mean is a constant where it is there, as categories."""
_NEARLY_ALWAYS = 0.9
_DERIVE_AT_ONCE = 64
_GATHER_AT_ONCE = 64


def _finite() -> np.errstate:
    """Around products of what is finite. A BLAS that reads beyond a row's end sets the flag for what it finds there
    (numpy 2's OpenBLAS, seen in one process of hundreds), and numpy would warn of a result that has none of it."""
    return np.errstate(invalid="ignore")


class Predicted(NamedTuple):
    """What the regressions say of n candidates, float32[n] each.

    Attributes:
        mean: expected reward.
        variance: of the mean, in units of the noise's.
        resolved: which part of the prior's variance is gone, in [0, 1].
    """

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    resolved: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """How coordinates are standardised. `unit` and `centre`: float64[d]; `precision`: float64[d], of the prior."""

    unit: Floats
    centre: Floats
    precision: Floats

    def same(self, other: Standard) -> bool:
        """Whether nothing that was derived with one is stale with the other."""
        return all(
            np.array_equal(mine, theirs)
            for mine, theirs in (
                (self.unit, other.unit),
                (self.centre, other.centre),
                (self.precision, other.precision),
            )
        )

    def of(self, x: Floats) -> NDArray[np.float32]:
        """float32[n, d]: rows in units, none beyond `_MOST_UNITS`. x: float64[n, d]."""
        return np.clip((x - self.centre) / self.unit, -_MOST_UNITS, _MOST_UNITS).astype(np.float32)


class ArmRidge:
    """See the module. Learns from mini-batches that are a function of the sequence of examples.

    Args:
        dimension: coordinates d, the first one of which is 1 in every row.
        ridge: prior precision of a standardised coordinate, in examples.
        arms: how many are kept, and for how long.
    """

    def __init__(self, dimension: int, ridge: float, arms: PerArmParams) -> None:
        self._dimension, self._ridge, self._params = dimension, ridge, arms
        self._upper, self._square = triangle.packed(dimension)
        self._ids = np.zeros(dimension, np.uint32)  # the feature of each coordinate
        self._taken = np.zeros(dimension, np.bool_)
        self._taken[0] = True
        self._seen = np.zeros((3, dimension))  # examples that had the feature, sum of x, sum of x²
        # Examples, sum of rewards, how often each was counted: more than once in models of an earlier release.
        self._total = np.array([0.0, 0.0, 1.0])
        self._arms = ArmTable(
            {
                "precision": (np.float64, (len(self._upper[0]),)),
                "moment": (np.float64, (dimension,)),
                "readout": (np.float32, (dimension + 2, dimension)),
            }
        )
        self._stale = np.zeros(0, np.bool_)
        self._refresh()

    # -- features

    def _refresh(self) -> None:
        """Standardisation and look-up as the sums say."""
        order = np.argsort(np.where(self._taken, self._ids, np.uint32(0xFFFFFFFF)), kind="stable")
        order = order[self._taken[order] & (order > 0)]
        self._sorted, self._coordinate = self._ids[order], order
        before = getattr(self, "_standard", None)
        self._standard = self._standardisation()
        self._width = int(np.flatnonzero(self._taken)[-1]) + 1
        if before is not None and not before.same(self._standard):
            self._stale[:] = True

    def _standardisation(self) -> Standard:
        count, total, squares = self._seen
        with np.errstate(over="ignore"):
            mean = total / np.maximum(count, 1.0)
            variance = squares / np.maximum(count, 1.0) - mean * mean
        varies = variance > _VARIES * mean * mean
        size = np.where(varies, np.sqrt(np.maximum(variance, 0.0)), np.abs(mean))
        unit = np.exp2(np.round(np.log2(np.where(size > 0, size, 1.0))))
        always = count > _NEARLY_ALWAYS * self._total[0]
        centre = np.where(varies & always, np.round(2.0 * mean / unit) / 2.0 * unit, 0.0)
        unit[0], centre[0] = 1.0, 0.0
        precision = np.full(self._dimension, self._ridge)
        precision[0] = 1.0
        return Standard(unit, centre, precision)

    def _entries(self, features: SparseRows) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Row, coordinate and value of the entries that have one: [k] each."""
        if not len(self._sorted) or not len(features.ids):
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        at = np.minimum(self._sorted.searchsorted(features.ids), len(self._sorted) - 1)
        mine = np.flatnonzero(self._sorted[at] == features.ids)
        return segments.owners(features.offsets)[mine], self._coordinate[at[mine]], features.values[mine].astype(float)

    def rows(self, features: SparseRows) -> Floats:
        """float64[n, d]: the features that have a coordinate; coordinate 0 is 0."""
        owner, coordinate, values = self._entries(features)
        n, d = len(features), self._dimension
        return np.asarray(np.bincount(owner * d + coordinate, values, n * d), np.float64).reshape(n, d)

    def _admit(self, features: SparseRows) -> None:
        """Gives free coordinates to features that have none, in the order in which they appear."""
        free = np.flatnonzero(~self._taken)
        if not len(free):
            return
        ids = features.ids[(features.ids < CROSSED) & (features.values != 0)]
        ids = ids[~np.isin(ids, self._sorted)]
        once, first = np.unique(ids, return_index=True)
        new = once[np.argsort(first)][: len(free)]
        if len(new):
            self._ids[free[: len(new)]], self._taken[free[: len(new)]] = new, True
            self._refresh()

    def _sweep(self) -> None:
        """Takes their coordinates from features that have become rare."""
        rare = self._taken & (self._seen[0] < _RAREST * self._total[0])
        rare[0] = False
        if not rare.any():
            return
        self._taken[rare], self._ids[rare], self._seen[:, rare] = False, 0, 0.0
        self._arms["precision"][:, np.unique(self._square[rare])] = 0.0
        self._arms["moment"][:, rare] = 0.0
        self._stale[:] = True

    # -- scoring

    def predict(self, x: Floats, arms: NDArray[np.uint64]) -> Predicted:
        """Of candidates with these rows (float64[n, d], without the 1) and arms (uint64[n])."""
        x[:, 0] = 1.0
        slots = self._arms.find(arms)
        self._derive(slots)
        z = self._standard.of(x)[:, : self._width]
        with _finite():
            prior = np.square(z) @ (1.0 / self._standard.precision[: self._width]).astype(np.float32)
        average = np.float32(self._total[1] / max(self._total[0], 1.0))
        mean, variance = np.full(len(slots), average), prior.copy()
        known = np.flatnonzero(slots >= 0)
        readout, width = self._arms["readout"], self._width
        for start in range(0, len(known), _GATHER_AT_ONCE):
            part = known[start : start + _GATHER_AT_ONCE]
            with _finite():
                read = np.matmul(readout[slots[part], :, :width], z[part, :, None])[:, :, 0]
            mean[part] += read[:, -2] - average * read[:, -1]
            variance[part] = np.einsum("ij,ij->i", read[:, :-2], read[:, :-2])
        resolved = np.clip(1.0 - variance / prior, 0.0, 1.0)
        return Predicted(mean, variance * np.float32(self._total[2]), resolved)

    def _derive(self, slots: Slots) -> None:
        """Brings the readouts of these arms (-1 is passed over) up to their sums: [W; theta_r; theta_1], W^T W = A^-1,
        with theta_r and theta_1 from the sums of r x and of x."""
        wanted = np.unique(slots[slots >= 0])
        wanted = wanted[self._stale[wanted]]
        m = self._width
        standard, square = self._standard, self._square[:m, :m]
        shift, inverse = standard.centre[:m], 1.0 / standard.unit[:m]
        for start in range(0, len(wanted), _DERIVE_AT_ONCE):
            part = wanted[start : start + _DERIVE_AT_ONCE]
            sums = self._arms["precision"][part][:, square]
            moments = np.stack([self._arms["moment"][part, :m], sums[:, 0]], axis=2)
            # T = diag(inverse) (I - shift e_0^T), and coordinate 0 is 1 in every row.
            sums -= shift[:, None] * sums[:, :1]
            sums -= sums[:, :, :1] * shift
            sums *= inverse[:, None] * inverse
            moments -= shift[:, None] * moments[:, :1]
            moments *= inverse[:, None]
            sums += np.diag(standard.precision[:m])
            white = whitening(sums)
            readout = np.zeros((len(part), self._dimension + 2, self._dimension), np.float32)
            readout[:, :m, :m] = white
            readout[:, -2:, :m] = (white.transpose(0, 2, 1) @ (white @ moments)).transpose(0, 2, 1)
            self._arms["readout"][part] = readout
        self._stale[wanted] = False

    # -- learning

    def learn(self, features: SparseRows, arms: NDArray[np.uint64], rewards: Floats, times_s: Floats) -> None:
        """Takes in a mini-batch of n examples."""
        self._admit(features)
        owner, coordinate, values = self._entries(features)
        d, n = self._dimension, len(rewards)
        there = np.flatnonzero(values)
        for row, weights in enumerate((np.ones(len(there)), values[there], np.square(values[there]))):
            self._seen[row] += np.bincount(coordinate[there], weights, d)
        before = int(self._total[0])
        self._total[:2] += n, rewards.sum()
        self._refresh()
        standard = self._standard
        x = np.asarray(np.bincount(owner * d + coordinate, values, n * d), np.float64).reshape(n, d)
        reach = _MOST_UNITS * standard.unit
        x = np.clip(x, standard.centre - reach, standard.centre + reach)
        x[:, 0] = 1.0
        known = len(self._arms)
        slots = self._arms.claim(arms)
        self._stale = np.append(self._stale, np.ones(len(self._arms) - known, np.bool_))
        self._stale[slots] = True
        rows, columns = self._upper
        segments.add_rows(self._arms["precision"], slots, x.take(rows, axis=1) * x.take(columns, axis=1))
        segments.add_rows(self._arms["moment"], slots, x * rewards[:, None])
        np.maximum.at(self._arms["last_s"], slots, times_s)
        if before >> 10 != (before + n) >> 10:
            self._retire(float(times_s.max()))
        if before + n >= _FIRST_SWEEP and before.bit_length() != (before + n).bit_length():
            self._sweep()
            self._refresh()

    def _retire(self, now_s: float) -> None:
        stale = self._arms.keys()[self._stale]
        if len(self._arms.retire(self._params, now_s)):
            self._stale = np.isin(self._arms.keys(), stale)

    def fade(self, left: float) -> None:
        """Multiplies all sums by `left`: what is old counts less."""
        for column in ("precision", "moment"):
            self._arms.claim(np.zeros(0, np.uint64))  # which makes the columns writable
            self._arms[column][:] *= left
        self._seen *= left
        self._seen[:, self._seen[0] < _FORGOTTEN] = 0.0
        self._total[:2] *= left
        self._stale[:] = True
        self._refresh()

    # -- saving

    def tensors(self) -> Tensors:
        """All of the state, each name with "arm_" before it."""
        self._derive(np.arange(len(self._arms)))
        state = {
            **self._arms.tensors(),
            "ids": self._ids.copy(),
            "taken": self._taken.astype(np.uint8),
            "seen": self._seen.copy(),
            "total": self._total.copy(),
        }
        return {f"arm_{name}": array for name, array in state.items()}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what `tensors` gave; nothing is stale. Raises `InvalidTensors`."""
        d = self._dimension
        try:
            state = {name.removeprefix("arm_"): array for name, array in tensors.items() if name.startswith("arm_")}
            self._arms.restore(state)
            self._ids = tensor(state, "ids", np.uint32, (d,)).copy()
            self._taken = tensor(state, "taken", np.uint8, (d,)).astype(np.bool_)
            self._seen = tensor(state, "seen", np.float64, (3, d)).copy()
            self._total = tensor(state, "total", np.float64, (3,)).copy()
        except InvalidTensors as error:
            message = str(error).removeprefix(f"{error.field}: ")
            raise InvalidTensors(message, field=f"arm_{error.field}", value=error.value) from error
        if not self._taken[0]:
            raise InvalidTensors("must have coordinate 0", field="arm_taken")
        self._stale = np.zeros(0, np.bool_)
        self._refresh()
        self._stale = np.zeros(len(self._arms), np.bool_)
