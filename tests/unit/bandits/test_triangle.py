"""Where the elements of a packed triangle are."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.triangle import packed


def test_a_symmetric_matrix_comes_back_out_of_its_packed_triangle() -> None:
    matrix = np.array([[1, 2, 3], [2, 4, 5], [3, 5, 6]])
    upper, square = packed(3)
    assert matrix[upper].tolist() == [1, 2, 3, 4, 5, 6]
    assert (matrix[upper].take(square) == matrix).all()


def test_what_all_share_nobody_can_change() -> None:
    (rows, columns), square = packed(3)
    for array in (rows, columns, square):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
