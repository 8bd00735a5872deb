from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.errors import InvalidTensors
from banditmesh.bandits.table import Column, FeatureTable, Grouping

COLUMNS = {"weight": Column(0, 0.0), "pair": Column(2, 3.0)}


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


def table(bits: int = 8) -> FeatureTable:
    return FeatureTable(bits, COLUMNS)


def taught(*features: int) -> FeatureTable:
    """A table whose features have their own id as weight, and were seen at that time."""
    made = table()
    rows, _ = made.claim(ids(*features))
    made["weight"][rows] = features
    made.touch(rows, np.array(features, float))
    return made


def weights(of: FeatureTable, *features: int) -> list[float]:
    return of["weight"][of.find(ids(*features))].tolist()  # type: ignore[no-any-return]


def test_an_unseen_feature_has_the_prior() -> None:
    made = taught(5, 9)
    assert weights(made, 9, 7, 5) == [9, 0, 5]
    assert made["pair"][made.find(ids(7))].tolist() == [[3, 3]]
    assert len(made) == 2


def test_claiming_tells_which_rows_are_new() -> None:
    made = taught(5)
    rows, new = made.claim(ids(7, 5, 7, 6))
    assert made.ids(new).tolist() == [6, 7]
    assert made.ids(rows).tolist() == [7, 5, 7, 6]


def test_ids_that_fold_into_one_share_a_row() -> None:
    made = FeatureTable(4, COLUMNS)
    assert made.fold(ids(3, 19, 4)).tolist() == [3, 3, 4]


def test_the_order_of_appearance_leaves_no_trace() -> None:
    one, other = taught(5, 9, 200).tensors(), taught(200, 5, 9).tensors()
    assert one["ids"].tolist() == [5, 9, 200]
    assert {name: array.tobytes() for name, array in one.items()} == {n: a.tobytes() for n, a in other.items()}


def test_a_loaded_table_is_read_in_place_and_copied_when_it_learns() -> None:
    saved = taught(5, 9).tensors()
    for array in saved.values():
        array.flags.writeable = False
    made = table()
    made.restore(saved)
    assert np.shares_memory(made["pair"], saved["pair"])
    rows, _ = made.claim(ids(9, 7))
    made["weight"][rows] = 1.0
    assert weights(made, 5, 9, 7) == [5, 1, 1]
    assert saved["weight"].tolist() == [0, 5, 9]


@pytest.mark.parametrize(("most", "after_s", "left"), [(2, None, [0, 8, 9]), (9, 2.5, [0, 8, 9]), (9, None, [3, 8, 9])])
def test_the_features_seen_longest_ago_are_retired(most: int, after_s: float | None, left: list[float]) -> None:
    made = taught(8, 3, 9)
    made.retire(10.0, most, after_s)
    assert weights(made, 3, 8, 9) == left
    rows, new = made.claim(ids(3))
    assert len(new) == (0 if left[0] else 1)
    assert made["pair"][rows].tolist() == [[3, 3]]


def test_tensors_of_another_table_are_refused_by_name() -> None:
    saved = taught(5, 200).tensors()
    for field, change in {
        "ids": {"ids": ids(200, 5)},
        "pair": {"pair": np.zeros((2, 2), np.float32)},
        "weight": {"weight": np.array([0, np.nan, 1], np.float32)},
        "last_s": {"last_s": np.zeros(1)},
    }.items():
        with pytest.raises(InvalidTensors) as refused:
            table().restore({**saved, **change})
        assert refused.value.field == field
    with pytest.raises(InvalidTensors, match="200 is above 15"):
        FeatureTable(4, COLUMNS).restore(saved)


def test_entries_are_summed_by_feature() -> None:
    group = Grouping.of(np.array([4, 2, 4, 4, 7], np.int32))
    assert group.rows.tolist() == [2, 4, 7]
    assert group.rows[group.member].tolist() == [4, 2, 4, 4, 7]
    assert group.sums(np.array([1.0, 2, 3, 4, 5])).tolist() == [2, 8, 5]
    assert group.sums(np.array([[1.0], [2], [3], [4], [5]])).tolist() == [[2], [8], [5]]
