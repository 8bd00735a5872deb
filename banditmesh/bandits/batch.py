"""The arrays that go into and come out of a policy: flat, with offsets (CSR-like), never a list of objects.

The plain constructors trust their caller: they are the hot path. `checked()` builds the same value from anything
array-like, with every length, order, range and number verified, and raises `InvalidBatch` naming the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.errors import InvalidBatch
from banditmesh.bandits.feedback import Feedback


def _vector(name: str, given: ArrayLike, dtype: type[np.generic], length: int | None = None) -> NDArray[Any]:
    """`given` as a one-dimensional array of `dtype`, provided that no value changes by the conversion."""
    array = np.asarray(given)
    if array.ndim != 1:
        raise InvalidBatch(f"must have one dimension, has {array.ndim}", field=name)
    if length is not None and len(array) != length:
        raise InvalidBatch(f"has {len(array)} elements where {length} belong", field=name, value=len(array))
    if array.dtype == dtype or not len(array):
        return array.astype(dtype, copy=False)
    if issubclass(dtype, np.integer):
        if array.dtype.kind not in "iu":
            raise InvalidBatch(f"must hold integers, holds {array.dtype}", field=name)
        low, high, limits = int(array.min()), int(array.max()), np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            wrong = low if low < limits.min else high
            raise InvalidBatch(f"{wrong} does not fit in {limits.dtype}", field=name, value=wrong)
    elif issubclass(dtype, np.bool_) or array.dtype.kind not in "fiu":
        raise InvalidBatch(f"must hold {np.dtype(dtype)}, holds {array.dtype}", field=name)
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _finite(name: str, array: NDArray[Any]) -> NDArray[Any]:
    broken = np.flatnonzero(~np.isfinite(array))
    if len(broken):
        first = int(broken[0])
        raise InvalidBatch(f"{array[first]} at {first} is not finite", field=name, value=float(array[first]))
    return array


def require_finite(**arrays: NDArray[Any]) -> None:
    """Raise `InvalidBatch`, naming the field, when one of the arrays (of any shape) holds NaN or infinity."""
    for field, array in arrays.items():
        if np.count_nonzero(np.isfinite(array)) < array.size:  # a third of the time that `all` takes for a few numbers
            raise InvalidBatch("holds a number that is not finite", field=field)


def _offsets(name: str, given: ArrayLike, end: int) -> NDArray[np.int64]:
    offsets = _vector(name, given, np.int64)
    if not len(offsets) or offsets[0] != 0:
        raise InvalidBatch("must start with 0", field=name)
    if (np.diff(offsets) < 0).any():
        raise InvalidBatch("must never fall", field=name)
    if offsets[-1] != end:
        raise InvalidBatch(f"ends at {offsets[-1]}, the flat arrays at {end}", field=name, value=int(offsets[-1]))
    return offsets


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """Rows of sparse features, in compressed form (CSR). An id may stand twice in a row: its values then add up.

    Attributes:
        offsets: int64[n_rows + 1], row i owns the entries offsets[i]:offsets[i + 1].
        ids: uint32[n_entries], hashed feature ids.
        values: float32[n_entries].
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.uint32]
    values: NDArray[np.float32]

    @classmethod
    def checked(cls, offsets: ArrayLike, ids: ArrayLike, values: ArrayLike, *, field: str = "features") -> Self:
        """Builds rows from anything array-like; `InvalidBatch` names `field` and the part of it that is wrong."""
        checked_ids = _vector(f"{field}.ids", ids, np.uint32)
        checked_values = _vector(f"{field}.values", values, np.float32, len(checked_ids))
        return cls(
            _offsets(f"{field}.offsets", offsets, len(checked_ids)),
            checked_ids,
            _finite(f"{field}.values", checked_values),
        )

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[tuple[int, float]]]) -> Self:
        """Builds rows from lists of (id, value), checked."""
        listed = list(rows)
        entries = [entry for row in listed for entry in row]
        offsets = np.cumsum([0, *(len(row) for row in listed)])
        return cls.checked(offsets, [identifier for identifier, _ in entries], [value for _, value in entries])

    @classmethod
    def empty(cls, n_rows: int) -> Self:
        """`n_rows` rows without any feature."""
        return cls(np.zeros(n_rows + 1, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32))

    @classmethod
    def concat(cls, parts: Sequence[SparseRows]) -> Self:
        """All rows of all parts, one below the other."""
        if not parts:
            return cls.empty(0)
        ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
        return cls(
            np.concatenate([[0], *(part.offsets[1:] + end for part, end in zip(parts, ends[:-1], strict=True))]),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.values for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: NDArray[np.integer[Any]]) -> SparseRows:
        """The rows of the given numbers (int[n]), in that order; a row may be taken more than once."""
        starts = self.offsets[rows]
        lengths = self.offsets[1:][rows] - starts
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        entries = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return SparseRows(offsets, self.ids[entries], self.values[entries])

    def part(self, start: int, stop: int) -> SparseRows:
        """The rows start:stop, without a copy of what is large."""
        offsets = self.offsets[start : stop + 1]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        return SparseRows(offsets - offsets[0], self.ids[entries], self.values[entries])

    def beside(self, right: SparseRows) -> SparseRows:
        """Each row followed by the same row of `right`: context first, then the candidate's own features."""
        if len(self) != len(right):
            raise InvalidBatch(f"{len(right)} rows beside {len(self)}", field="features.offsets", value=len(right))
        offsets = self.offsets + right.offsets
        mine, theirs = self._width(), right._width()
        if mine is not None and theirs is not None:
            # Rows of one length on both sides, as complete features give: no index to build.
            both_ids = np.concatenate([self.ids.reshape(-1, mine), right.ids.reshape(-1, theirs)], axis=1)
            both_values = np.concatenate([self.values.reshape(-1, mine), right.values.reshape(-1, theirs)], axis=1)
            return SparseRows(offsets, both_ids.ravel(), both_values.ravel())
        ids = np.empty(offsets[-1], np.uint32)
        values = np.empty(offsets[-1], np.float32)
        for part, shift in ((self, right.offsets[:-1]), (right, self.offsets[1:])):
            at = np.arange(len(part.ids)) + np.repeat(shift, segments.lengths(part.offsets))
            ids[at], values[at] = part.ids, part.values
        return SparseRows(offsets, ids, values)

    def _width(self) -> int | None:
        """The number of entries of each row, if it is the same for all and not 0."""
        lengths = segments.lengths(self.offsets)
        if not len(lengths) or not lengths[0] or (lengths != lengths[0]).any():
            return None
        return int(lengths[0])

    def dot(self, weights: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Row-wise product with a hashed table: weights[2^bits] -> [n_rows]; ids are folded by their low bits."""
        folded = self.ids & np.uint32(len(weights) - 1)
        return segments.sums(weights[folded] * self.values, self.offsets)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """A batch of decisions, flat: decision i owns the candidates offsets[i]:offsets[i + 1].

    Attributes:
        offsets: int64[n_decisions + 1].
        contents, logics, services: uint64[n_candidates], keys (`hashing`); a policy's arm is one of the three.
        context: n_decisions rows, the features that all candidates of a decision share.
        features: n_candidates rows, the candidate's own features (content side and crosses).
        feedback: what the decisions' users did of late, for a policy that asks for it; None when not at hand.
    """

    offsets: NDArray[np.int64]
    contents: NDArray[np.uint64]
    logics: NDArray[np.uint64]
    services: NDArray[np.uint64]
    context: SparseRows
    features: SparseRows
    feedback: Feedback | None = None

    @classmethod
    def checked(
        cls,
        offsets: ArrayLike,
        contents: ArrayLike,
        logics: ArrayLike,
        services: ArrayLike,
        context: SparseRows,
        features: SparseRows,
        feedback: Feedback | None = None,
    ) -> Self:
        """Builds a batch with every part verified; `InvalidBatch` names the field that is wrong."""
        keys = _vector("contents", contents, np.uint64)
        n = len(keys)
        checked_offsets = _offsets("offsets", offsets, n)
        if feedback is not None and len(feedback) != len(checked_offsets) - 1:
            message = f"is of {len(feedback)} users where {len(checked_offsets) - 1} belong"
            raise InvalidBatch(message, field="feedback.counts", value=len(feedback))
        _rows("context", context, len(checked_offsets) - 1)
        _rows("features", features, n)
        return cls(
            checked_offsets,
            keys,
            _vector("logics", logics, np.uint64, n),
            _vector("services", services, np.uint64, n),
            SparseRows.checked(context.offsets, context.ids, context.values, field="context"),
            SparseRows.checked(features.offsets, features.ids, features.values),
            feedback,
        )

    def __len__(self) -> int:
        return len(self.contents)

    def part(self, start: int, stop: int) -> Candidates:
        """The decisions start:stop, without a copy of what is large."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return Candidates(
            self.offsets[start : stop + 1] - first,
            self.contents[first:last],
            self.logics[first:last],
            self.services[first:last],
            self.context.part(start, stop),
            self.features.part(first, last),
            None if self.feedback is None else self.feedback.part(start, stop),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Rows to learn from, in their order.

    Attributes:
        contents, logics, services: uint64[n], keys of what was shown.
        features: n rows, the decision's context and the candidate's own features together, context first.
        rewards: float32[n].
        propensities: float32[n], the probability with which the content was shown, in (0, 1].
        times_s: float64[n], when it was shown, in seconds since 1970.
        clicked: bool[n].
        names: (service, content id) of each row, for a policy that answers with names; None when not at hand.
    """

    contents: NDArray[np.uint64]
    logics: NDArray[np.uint64]
    services: NDArray[np.uint64]
    features: SparseRows
    rewards: NDArray[np.float32]
    propensities: NDArray[np.float32]
    times_s: NDArray[np.float64]
    clicked: NDArray[np.bool_]
    names: Sequence[tuple[str, str]] | None = None

    @classmethod
    def checked(
        cls,
        contents: ArrayLike,
        logics: ArrayLike,
        services: ArrayLike,
        features: SparseRows,
        rewards: ArrayLike,
        propensities: ArrayLike,
        times_s: ArrayLike,
        clicked: ArrayLike,
        names: Sequence[tuple[str, str]] | None = None,
    ) -> Self:
        """Builds examples with every part verified; `InvalidBatch` names the field that is wrong."""
        keys = _vector("contents", contents, np.uint64)
        n = len(keys)
        _rows("features", features, n)
        chances = _finite("propensities", _vector("propensities", propensities, np.float32, n))
        if n and not (chances.min() > 0 and chances.max() <= 1):
            wrong = float(chances[(chances <= 0) | (chances > 1)][0])
            raise InvalidBatch(f"{wrong} is not in (0, 1]", field="propensities", value=wrong)
        if names is not None and len(names) != n:
            raise InvalidBatch(f"has {len(names)} elements where {n} belong", field="names", value=len(names))
        return cls(
            keys,
            _vector("logics", logics, np.uint64, n),
            _vector("services", services, np.uint64, n),
            SparseRows.checked(features.offsets, features.ids, features.values),
            _finite("rewards", _vector("rewards", rewards, np.float32, n)),
            chances,
            _finite("times_s", _vector("times_s", times_s, np.float64, n)),
            _vector("clicked", clicked, np.bool_, n),
            names,
        )

    def __len__(self) -> int:
        return len(self.contents)

    def take(self, rows: NDArray[np.integer[Any]]) -> Examples:
        """The examples of the given numbers (int[n]), in that order; without a copy when these are all."""
        if len(rows) == len(self) and (rows == np.arange(len(rows))).all():
            return self
        return Examples(
            self.contents[rows],
            self.logics[rows],
            self.services[rows],
            self.features.take(rows),
            self.rewards[rows],
            self.propensities[rows],
            self.times_s[rows],
            self.clicked[rows],
            None if self.names is None else [self.names[row] for row in rows],
        )


class Scores(NamedTuple):
    """What a policy believes of each candidate.

    Attributes:
        mean: float32[n_candidates], the expected reward.
        deviation: float32[n_candidates], the standard deviation of that belief; 0 when the policy has none.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def usable(self) -> NDArray[np.bool_]:
        """bool[n_candidates]: which scores are finite; the others rank last, and `~usable` is what to count."""
        return np.isfinite(self.mean) & np.isfinite(self.deviation)


def _rows(name: str, rows: SparseRows, n: int) -> None:
    if len(rows) != n:
        raise InvalidBatch(f"has {len(rows)} rows where {n} belong", field=f"{name}.offsets", value=len(rows))
