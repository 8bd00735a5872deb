"""Reductions over the segments of a flat array: segment i is `values[..., offsets[i]:offsets[i + 1]]`.

Offsets are int64[n_segments + 1], start at 0, never fall and end at the length of the flat axis. Empty segments are
allowed everywhere. That is the reason for this module: `ufunc.reduceat` answers an empty segment with the *next*
segment's first element, silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]

_FEW, _WIDE = 8, 256


def lengths(offsets: Offsets) -> NDArray[np.int64]:
    """int64[n_segments]: the number of elements of each; in a third of the time that `np.diff` takes."""
    return offsets[1:] - offsets[:-1]


def width(offsets: Offsets) -> int:
    """The length that all segments have, if it is the same for all; otherwise 0, as for none or for empty ones."""
    if len(offsets) == 2:
        return int(offsets[1])
    counts = lengths(offsets)
    return int(counts[0]) if len(counts) and np.count_nonzero(counts == counts[0]) == len(counts) else 0


def owners(offsets: Offsets) -> NDArray[np.int64]:
    """int64[n]: the segment of each flat element."""
    return np.repeat(np.arange(len(offsets) - 1), lengths(offsets))


def ranks(offsets: Offsets) -> NDArray[np.int64]:
    """int64[n]: the place of each flat element in its segment, from 0."""
    return np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], lengths(offsets))


def _reduce(ufunc: np.ufunc, values: NDArray[Any], offsets: Offsets, empty: float) -> NDArray[Any]:
    starts = offsets[:-1]
    filled = starts < offsets[1:]
    if filled.all():
        # Also the way out when there is no segment at all: reduceat takes an empty list of starts.
        return np.asarray(ufunc.reduceat(values, starts, axis=-1))
    out = np.full((*values.shape[:-1], len(starts)), empty, values.dtype)
    # The starts of the filled segments alone rise strictly, and each one's end is the next one's start.
    if filled.any():
        out[..., filled] = ufunc.reduceat(values, starts[filled], axis=-1)
    return out


def sums(values: NDArray[Any], offsets: Offsets) -> NDArray[Any]:
    """Sums over the last axis: [..., n] -> [..., n_segments]; 0 for an empty segment. Keeps the type of `values`."""
    return _reduce(np.add, values, offsets, 0)


def row_sums(values: NDArray[Any], offsets: Offsets) -> NDArray[Any]:
    """Sums over the first axis: [n, k] -> [n_segments, k]; 0 for an empty segment. Keeps the type of `values`."""
    counts = lengths(offsets)
    if len(counts) and counts[0] > 0 and (counts == counts[0]).all():
        # Rows of one length, as complete features give. einsum is four times as fast as sum(axis=1) or reduceat.
        return np.asarray(np.einsum("nck->nk", values.reshape(len(counts), counts[0], -1)))
    filled = counts > 0
    if filled.all():
        return np.asarray(np.add.reduceat(values, offsets[:-1], axis=0))
    out = np.zeros((len(counts), *values.shape[1:]), values.dtype)
    if filled.any():
        out[filled] = np.add.reduceat(values, offsets[:-1][filled], axis=0)
    return out


def maxima(values: Floats, offsets: Offsets) -> Floats:
    """Maxima over the last axis: [..., n] -> [..., n_segments]; -inf for an empty segment."""
    return _reduce(np.maximum, values, offsets, -np.inf)


def argmax(values: Floats, offsets: Offsets) -> NDArray[np.int64]:
    """int64[n_segments]: the flat index of the first maximum of each segment; -1 for an empty one."""
    best = maxima(values, offsets)
    n = len(values)
    index = np.where(values == np.repeat(best, lengths(offsets)), np.arange(n), n)
    first = np.asarray(_reduce(np.minimum, index, offsets, -1), np.int64)
    return np.where(first == n, -1, first)  # a segment that holds a NaN has no maximum


def kept_offsets(offsets: Offsets, keep: NDArray[np.bool_]) -> Offsets:
    """The offsets of `values[keep]`: the same segments after elements were taken out. keep: bool[n]."""
    before = np.zeros(len(keep) + 1, np.int64)
    np.cumsum(keep, out=before[1:])
    return before[offsets]


def add_rows(table: NDArray[np.float64], at: NDArray[np.int64], rows: NDArray[np.float64]) -> None:
    """table[at[i]] += rows[i], one after the other, so that the bits do not depend on how a stream was cut.

    table: float64[n_groups, k], contiguous; at: int64[n], repeats allowed; rows: float64[n, k].
    """
    k = table.shape[1]
    if len(at) < _FEW or k > _WIDE:
        for row, values in zip(at.tolist(), rows, strict=True):
            table[row] += values
        return
    # Of one dimension `ufunc.at` takes 2 ns an element, of two ten times as long; a turn of the loop above 0.7 µs.
    np.add.at(table.reshape(-1), (at[:, None] * k + np.arange(k)).ravel(), rows.ravel())


def rounds(groups: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Positions of `groups` (int64[n]) in rounds: round r holds the r-th element of each group that has as many.

    So a fold over each group can be vectorised across the groups and still takes every group's elements in their
    order, one by one. Its result does not depend on how a stream was cut into batches.
    """
    if not len(groups):
        return
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    position = np.arange(len(groups))
    is_first = np.ones(len(groups), np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    rank = position - np.maximum.accumulate(np.where(is_first, position, 0))
    yield from np.split(order[np.argsort(rank, kind="stable")], np.cumsum(np.bincount(rank))[:-1])
