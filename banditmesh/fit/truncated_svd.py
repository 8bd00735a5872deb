"""Sparse matrices as far as a text model needs them: products, a truncated singular value decomposition, ridge
regression.

The decomposition is the randomised one with power iterations (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1),
which is what scikit-learn's TruncatedSVD does; here it takes numpy alone, so that no service and no command needs
scipy.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import SparseRows

Matrix = NDArray[np.float64]
_OVERSAMPLING: Final = 10
_POWER: Final = 5
_ROWS_AT_ONCE: Final = 2048
_STEPS: Final = 40
_ENOUGH: Final = 1e-4


class Sparse:
    """A sparse matrix and its transpose. Attributes: ``shape``."""

    def __init__(self, rows: SparseRows, columns: int) -> None:
        self.shape = (len(rows.offsets) - 1, columns)
        self._rows = rows
        order = np.argsort(rows.ids, kind="stable")
        offsets = np.zeros(columns + 1, np.int64)
        np.cumsum(np.bincount(rows.ids, minlength=columns), out=offsets[1:])
        owners = segments.owners(rows.offsets)
        self._columns = SparseRows(offsets, owners[order].astype(np.uint32), rows.values[order])

    def times(self, dense: Matrix) -> Matrix:
        """``float64[n_rows, k]``: the matrix times ``float64[n_columns, k]``."""
        return _product(self._rows, dense)

    def transposed_times(self, dense: Matrix) -> Matrix:
        """``float64[n_columns, k]``: the transpose times ``float64[n_rows, k]``."""
        return _product(self._columns, dense)

    @property
    def squared(self) -> float:
        """The sum of all squared entries."""
        return float((self._rows.values.astype(np.float64) ** 2).sum())


def decomposed(matrix: Sparse, rank: int, seed: int) -> tuple[Matrix, Matrix, float]:
    """The rows' places U·Σ (``float64[n_rows, rank]``), the components V (``float64[n_columns, rank]``), and the
    share of the squared entries that they hold."""
    rng = np.random.default_rng(seed)
    width = min(rank + _OVERSAMPLING, *matrix.shape)
    basis = np.linalg.qr(matrix.times(rng.standard_normal((matrix.shape[1], width))))[0]
    for _ in range(_POWER):
        other = np.linalg.qr(matrix.transposed_times(basis))[0]
        basis = np.linalg.qr(matrix.times(other))[0]
    left, values, right = np.linalg.svd(matrix.transposed_times(basis).T, full_matrices=False)
    total = matrix.squared
    share = float((values[:rank] ** 2).sum() / total) if total else 0.0
    return basis @ left[:, :rank] * values[:rank], right[:rank].T, share


def ridge(matrix: Sparse, wanted: Matrix, weight: float) -> Matrix:
    """``float64[n_columns, k]``: the W that minimises ‖X W − wanted‖² + weight ‖W‖², by conjugate gradients (Hestenes &
    Stiefel 1952), all columns at once."""
    solution = np.zeros((matrix.shape[1], wanted.shape[1]))
    residual = matrix.transposed_times(wanted)
    direction = residual.copy()
    before = (residual**2).sum(axis=0)
    enough = _ENOUGH**2 * before
    for _ in range(_STEPS):
        image = matrix.transposed_times(matrix.times(direction)) + weight * direction
        step = before / np.maximum((direction * image).sum(axis=0), 1e-300)
        solution += step * direction
        residual -= step * image
        now = (residual**2).sum(axis=0)
        if (now <= enough).all():
            break
        direction = residual + now / np.maximum(before, 1e-300) * direction
        before = now
    return solution


def _product(rows: SparseRows, dense: Matrix) -> Matrix:
    """Piece by piece: the products of all entries at once would take their number times the width."""
    n = len(rows.offsets) - 1
    out = np.zeros((n, dense.shape[1]))
    for start in range(0, n, _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, n)
        span = slice(int(rows.offsets[start]), int(rows.offsets[end]))
        entries = rows.values[span, None] * dense[rows.ids[span]]
        out[start:end] = segments.row_sums(entries, rows.offsets[start : end + 1] - rows.offsets[start])
    return out
