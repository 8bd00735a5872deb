"""Gaussian posteriors of small linear models, many at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrices = NDArray[np.float64]


def whitening(precision: Matrices) -> Matrices:
    """W with W^T W = A^-1 for each precision matrix A: float64[n, d, d] -> float64[n, d, d].

    Then x^T A^-1 x = |W x|^2: never negative, and exact to the rounding of |W x|, where the quadratic form loses all
    digits in a well-known direction beside an unknown one. W = L^-1 with A = L L^T; an A that rounding has made
    indefinite (features of wildly different size) gets its eigenvalues lifted instead.
    """
    try:
        return np.linalg.inv(np.linalg.cholesky(precision))
    except np.linalg.LinAlgError:
        return np.stack([_robust(matrix) for matrix in precision])


def _robust(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        return np.linalg.inv(np.linalg.cholesky(precision))
    except np.linalg.LinAlgError:
        eigenvalues, eigenvectors = np.linalg.eigh(precision)
        # Below this an eigenvalue is nothing but the rounding of the largest one.
        least = eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float64).eps
        return np.asarray((eigenvectors / np.sqrt(np.maximum(eigenvalues, least))).T)
