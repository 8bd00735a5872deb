from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditmesh.bandits.blocks import Column, Crosses, FieldBlock
from banditmesh.bandits.hashing import cross


def block(rows: int, columns: int, seed: int, absent: float = 0.0) -> FieldBlock:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)).astype(np.float32)
    values[rng.random(values.shape) < absent] = 0.0
    return FieldBlock(rng.integers(0, 2**32, (rows, columns), np.uint32), values)


@given(rows=st.integers(0, 6), columns=st.integers(0, 5), absent=st.sampled_from([0.0, 0.3, 1.0]))
def test_a_block_becomes_rows_of_what_is_present_in_the_order_of_its_columns(
    rows: int, columns: int, absent: float
) -> None:
    dense = block(rows, columns, rows * 7 + columns, absent)
    sparse = dense.sparse()
    assert len(sparse) == rows
    for row in range(rows):
        own = slice(sparse.offsets[row], sparse.offsets[row + 1])
        present = dense.values[row] != 0.0
        assert sparse.ids[own].tolist() == dense.ids[row, present].tolist()
        assert sparse.values[own].tolist() == dense.values[row, present].tolist()


@pytest.mark.parametrize(
    "pairs",
    [
        [(("user", 0), ("content", 1)), (("user", 2), ("content", 0))],
        [(("content", 1), ("user", 1)), (("content", 0), ("user", 1))],
        [(("content", 0), ("content", 1))],
        [(("user", 0), ("content", 1)), (("content", 0), ("user", 2)), (("content", 1), ("content", 0))],
    ],
    ids=["user with content", "content with user", "content with content", "all kinds"],
)
def test_each_cross_is_of_the_columns_that_it_names_in_that_order(pairs: list[tuple[Column, Column]]) -> None:
    users, contents, owners = block(2, 3, 1), block(4, 2, 2), np.array([0, 0, 1, 1])
    crossed = Crosses(pairs, content_columns=2).of(users, contents, owners)
    sides = {"user": users.take(owners), "content": contents}
    for at, ((left, i), (right, j)) in enumerate(pairs):
        assert crossed.ids[:, at].tolist() == cross(sides[left].ids[:, i], sides[right].ids[:, j]).tolist()
        assert crossed.values[:, at].tolist() == (sides[left].values[:, i] * sides[right].values[:, j]).tolist()
