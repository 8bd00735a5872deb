from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from banditmesh.bandits.batch import Candidates, Examples, Scores, SparseRows
from banditmesh.bandits.errors import InvalidBatch

from .batches import candidates, examples, sparse_rows


def as_lists(rows: SparseRows) -> list[list[tuple[int, float]]]:
    entries = list(zip(rows.ids.tolist(), rows.values.tolist(), strict=True))
    return [entries[start:stop] for start, stop in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]


A = [[(1, 1.0), (2, 2.0)], [], [(3, 3.0)]]
INFINITE = SparseRows(np.array([0, 1, 1, 1]), np.zeros(1, np.uint32), np.array([np.inf], np.float32))
B = [[], [(4, 4.0)], [(5, 5.0), (5, 6.0)]]


def test_lists_become_rows_and_back() -> None:
    assert as_lists(SparseRows.from_lists(A)) == A
    assert as_lists(SparseRows.from_lists([])) == []


def test_concat_puts_rows_below_each_other() -> None:
    assert as_lists(SparseRows.concat([SparseRows.from_lists(A), SparseRows.empty(1), SparseRows.from_lists(B)])) == [
        *A,
        [],
        *B,
    ]
    assert len(SparseRows.concat([])) == 0


def test_beside_puts_the_right_row_after_the_left() -> None:
    both = SparseRows.from_lists(A).beside(SparseRows.from_lists(B))
    assert as_lists(both) == [left + right for left, right in zip(A, B, strict=True)]


def test_beside_is_the_same_for_rows_of_one_length() -> None:
    left = [[(1, 1.0), (2, 2.0)], [(3, 3.0), (4, 4.0)]]
    right = [[(5, 5.0)], [(6, 6.0)]]
    both = SparseRows.from_lists(left).beside(SparseRows.from_lists(right))
    assert as_lists(both) == [one + other for one, other in zip(left, right, strict=True)]


def test_take_may_repeat_and_reorder_rows() -> None:
    assert as_lists(SparseRows.from_lists(A).take(np.array([2, 0, 1, 2]))) == [A[2], A[0], A[1], A[2]]
    assert len(SparseRows.from_lists(A).take(np.array([], np.int64))) == 0


def test_dot_is_right_for_empty_rows_and_folds_ids() -> None:
    weights = np.array([10.0, 1.0, 2.0, 3.0])
    assert SparseRows.from_lists([[], [(1, 2.0), (7, 1.0)], [], [(4, 0.5)], []]).dot(weights).tolist() == [
        0,
        5,
        0,
        5,
        0,
    ]


def test_examples_are_taken_with_their_names() -> None:
    batch = examples(np.random.default_rng(0), 4)
    part = batch.take(np.array([3, 1]))
    assert part.names == [batch.names[3], batch.names[1]]  # type: ignore[index]
    assert part.rewards.tolist() == batch.rewards[[3, 1]].tolist()


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("features.offsets", {"offsets": [1, 2]}),
        ("features.offsets", {"offsets": [0, 2, 1, 2]}),
        ("features.offsets", {"offsets": [0, 1]}),
        ("features.offsets", {"offsets": []}),
        ("features.ids", {"ids": [1, -1]}),
        ("features.ids", {"ids": [1, 2**32]}),
        ("features.ids", {"ids": [1.0, 2.0]}),
        ("features.ids", {"ids": [[1, 2]]}),
        ("features.values", {"values": [1.0]}),
        ("features.values", {"values": [1.0, np.nan]}),
        ("features.values", {"values": [1.0, 1e39]}),
        ("features.values", {"values": ["a", "b"]}),
    ],
)
def test_rows_that_do_not_fit_name_the_field(field: str, change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"offsets": [0, 2], "ids": [1, 2], "values": [1.0, 2.0]}
    SparseRows.checked(**good)
    with pytest.raises(InvalidBatch) as refused:
        SparseRows.checked(**{**good, **change})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("offsets", {"offsets": [0, 1, 4]}),
        ("logics", {"logics": [1]}),
        ("services", {"services": [-1, 0, 0]}),
        ("context.offsets", {"context": SparseRows.empty(3)}),
        ("features.offsets", {"features": SparseRows.empty(2)}),
        ("features.values", {"features": INFINITE}),
    ],
)
def test_candidates_that_do_not_fit_name_the_field(field: str, change: dict[str, Any]) -> None:
    good = {name: getattr(candidates(np.random.default_rng(1), [1, 2]), name) for name in Candidates.__slots__}
    Candidates.checked(**good)
    with pytest.raises(InvalidBatch) as refused:
        Candidates.checked(**{**good, **change})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("rewards", {"rewards": [0.0, np.inf]}),
        ("propensities", {"propensities": [0.0, 1.0]}),
        ("propensities", {"propensities": [0.5, 1.5]}),
        ("times_s", {"times_s": [0.0]}),
        ("times_s", {"times_s": [0.0, np.nan]}),
        ("clicked", {"clicked": [0, 1]}),
        ("names", {"names": [("a", "b")]}),
        ("features.offsets", {"features": sparse_rows(np.random.default_rng(0), 3)}),
    ],
)
def test_examples_that_do_not_fit_name_the_field(field: str, change: dict[str, Any]) -> None:
    good = {name: getattr(examples(np.random.default_rng(1), 2), name) for name in Examples.__slots__}
    Examples.checked(**good)
    with pytest.raises(InvalidBatch) as refused:
        Examples.checked(**{**good, **change})
    assert refused.value.field == field


def test_usable_scores_are_finite_in_mean_and_deviation() -> None:
    mean, deviation = [1, np.nan, 0, np.inf], [0, 0, np.nan, 1]
    scores = Scores(np.array(mean, np.float32), np.array(deviation, np.float32))
    assert scores.usable().tolist() == [True, False, False, False]


def test_a_part_is_what_take_gives() -> None:
    rows = SparseRows.from_lists([*A, *B])
    for start, stop in [(0, 6), (1, 4), (2, 2), (6, 6)]:
        assert as_lists(rows.part(start, stop)) == as_lists(rows.take(np.arange(start, stop)))
