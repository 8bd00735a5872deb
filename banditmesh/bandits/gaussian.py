"""Gaussian posteriors of small linear models, many at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrices = NDArray[np.floating[Any]]

_SMALL = 16


def whitening(precision: Matrices) -> Matrices:
    """W with W^T W = A^-1 for each precision matrix A: float64[n, d, d] -> float64[n, d, d].

    Then x^T A^-1 x = |W x|^2: never negative, and exact to the rounding of |W x|, where the quadratic form loses all
    digits in a well-known direction beside an unknown one. W = L^-1 with A = L L^T; an A that rounding has made
    indefinite (features of wildly different size) gets its eigenvalues lifted instead.
    """
    try:
        return inverse_of_lower(np.linalg.cholesky(precision))
    except np.linalg.LinAlgError:
        return np.concatenate([_robust(matrix[None]) for matrix in precision])


def inverse_of_lower(lower: Matrices) -> Matrices:
    """Inverses of lower triangular matrices, float64[n, d, d], by those of the two blocks on the diagonal.

    [[A, 0], [C, B]]^-1 = [[A^-1, 0], [-B^-1 C A^-1, B^-1]]. LAPACK's general inverse, which is what numpy has, factors
    the matrix once more and computes the zeros: it takes twice as long for d = 32, and no longer for d = 16.
    """
    n, d, _ = lower.shape
    if d <= _SMALL or d % 2:
        return np.linalg.inv(lower)
    half = d // 2
    inverses = inverse_of_lower(np.concatenate([lower[:, :half, :half], lower[:, half:, half:]]))
    top, bottom = inverses[:n], inverses[n:]
    out = np.zeros(lower.shape)
    out[:, :half, :half], out[:, half:, half:] = top, bottom
    np.matmul(-bottom, lower[:, half:, :half] @ top, out=out[:, half:, :half])
    return out


def _robust(precision: Matrices) -> Matrices:
    """The same of a single one: float64[1, d, d]."""
    try:
        return inverse_of_lower(np.linalg.cholesky(precision))
    except np.linalg.LinAlgError:
        eigenvalues, eigenvectors = np.linalg.eigh(precision[0])
        # Below this an eigenvalue is nothing but the rounding of the largest one.
        least = eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float64).eps
        return np.asarray((eigenvectors / np.sqrt(np.maximum(eigenvalues, least))).T)[None]
