from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditmesh.bandits import segments

lengths = st.lists(st.integers(0, 4), max_size=8)


def flat(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *counts])
    return np.random.default_rng(sum(counts)).normal(size=offsets[-1]), offsets


def test_an_empty_segment_does_not_borrow_from_the_next() -> None:
    offsets = np.array([0, 0, 2, 2, 2, 3, 3])
    values = np.array([1.0, 2.0, 5.0])
    assert segments.sums(values, offsets).tolist() == [0, 3, 0, 0, 5, 0]
    assert segments.maxima(values, offsets).tolist() == [-np.inf, 2, -np.inf, -np.inf, 5, -np.inf]
    assert segments.argmax(values, offsets).tolist() == [-1, 1, -1, -1, 2, -1]


@given(lengths)
def test_reductions_agree_with_a_loop(counts: list[int]) -> None:
    values, offsets = flat(counts)
    parts = [values[start:stop] for start, stop in pairwise(offsets)]
    np.testing.assert_allclose(segments.sums(values, offsets), [part.sum() for part in parts], atol=1e-12)
    assert segments.maxima(values, offsets).tolist() == [part.max(initial=-np.inf) for part in parts]
    best = [start + part.argmax() if len(part) else -1 for start, part in zip(offsets[:-1], parts, strict=True)]
    assert segments.argmax(values, offsets).tolist() == best
    assert segments.owners(offsets).tolist() == [i for i, count in enumerate(counts) for _ in range(count)]


def test_sums_reduce_the_last_axis() -> None:
    values = np.arange(6.0).reshape(2, 3)
    assert segments.sums(values, np.array([0, 2, 2, 3])).tolist() == [[1, 0, 2], [7, 0, 5]]


def test_argmax_takes_the_first_of_equals_and_none_of_a_segment_with_nan() -> None:
    values = np.array([1.0, 3.0, 3.0, np.nan, 2.0])
    assert segments.argmax(values, np.array([0, 3, 5])).tolist() == [1, -1]


def test_kept_offsets_describe_what_is_left() -> None:
    keep = np.array([True, False, False, True, True])
    assert segments.kept_offsets(np.array([0, 2, 3, 5]), keep).tolist() == [0, 1, 1, 3]


@given(st.lists(st.integers(0, 3), max_size=20))
def test_rounds_hold_each_group_once_and_in_order(groups: list[int]) -> None:
    array = np.array(groups, np.int64)
    taken = list(segments.rounds(array))
    assert sorted(np.concatenate([np.zeros(0, int), *taken]).tolist()) == list(range(len(groups)))
    for part in taken:
        assert len(set(array[part].tolist())) == len(part)
    for group in set(groups):
        positions = [int(p) for part in taken for p in part if groups[p] == group]
        assert positions == sorted(positions)


@given(lengths)
def test_row_sums_agree_with_a_loop(counts: list[int]) -> None:
    values, offsets = flat(counts)
    wide = np.column_stack([values, -values])
    parts = [wide[start:stop].sum(axis=0) for start, stop in pairwise(offsets)]
    np.testing.assert_allclose(segments.row_sums(wide, offsets), np.reshape(parts, (-1, 2)), atol=1e-12)


@pytest.mark.parametrize(
    ("counts", "width"), [([], 0), ([0], 0), ([3], 3), ([0, 0], 0), ([2, 2, 2], 2), ([2, 3], 0), ([4, 0], 0)]
)
def test_the_width_is_that_of_all_segments_or_none(counts: list[int], width: int) -> None:
    assert segments.width(np.cumsum([0, *counts])) == width


@pytest.mark.parametrize("k", [1, 30, 300], ids=["narrow", "wide", "very wide"])
def test_rows_are_added_one_after_the_other_however_they_are_cut(k: int) -> None:
    rng = np.random.default_rng(k)
    n = 100
    at = rng.integers(0, 5, n)
    rows = rng.normal(size=(n, k)) * 10.0 ** rng.integers(-8, 9, (n, 1))  # so that another order has other bits
    expected = np.zeros((6, k))
    for group, row in zip(at, rows, strict=True):
        expected[group] += row
    for cuts in ([], [50], [1, 3, 9, 20], list(range(1, n))):
        table = np.zeros((6, k))
        for part in np.split(np.arange(n), cuts):
            segments.add_rows(table, at[part], rows[part])
        assert table.tobytes() == expected.tobytes()
