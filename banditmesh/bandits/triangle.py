"""Where the elements of a symmetric matrix are when its upper triangle is kept packed, row by row."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Upper = tuple[NDArray[np.intp], NDArray[np.intp]]


@lru_cache(maxsize=32)
def packed(dimension: int) -> tuple[Upper, NDArray[np.int64]]:
    """The rows and columns of the packed elements, intp[n] each, and for each element of the matrix its place among
    them, int64[dimension, dimension]. Read-only: all arms' tables of that dimension have the same."""
    rows, columns = np.triu_indices(dimension)
    square = np.empty((dimension, dimension), np.int64)
    square[rows, columns] = square[columns, rows] = np.arange(len(rows))
    for array in (rows, columns, square):
        array.flags.writeable = False
    return (rows, columns), square
