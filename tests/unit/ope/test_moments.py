from __future__ import annotations

import numpy as np
import pytest

from banditmesh.ope.moments import Moments


def of(pairs: np.ndarray) -> Moments:
    moments = Moments()
    moments.add(pairs)
    return moments


def test_moments_of_parts_are_those_of_the_whole() -> None:
    pairs = np.random.default_rng(0).exponential(size=(300, 2)) @ np.array([[1.0, 0.4], [0.0, 2.0]])
    whole, parts = of(pairs), Moments()
    for part in np.split(pairs, [1, 2, 90]):
        parts.merge(of(part))
    off = pairs - pairs.mean(axis=0)
    third = np.einsum("ni,nj,nk->ijk", off, off, off)
    for moments in (whole, parts):
        assert moments.n == 300
        np.testing.assert_allclose(moments.mean, pairs.mean(axis=0))
        np.testing.assert_allclose(moments.scatter, off.T @ off)
        np.testing.assert_allclose(moments.third, third)


def test_error_and_skewness_along_a_direction_are_those_of_the_combination() -> None:
    pairs, gradient = np.random.default_rng(1).exponential(size=(200, 2)), np.array([2.0, -0.5])
    values = pairs @ gradient
    error, skewness = of(pairs).along(gradient)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(200))
    deviations = values - values.mean()
    assert skewness == pytest.approx((deviations**3).mean() / (deviations**2).mean() ** 1.5 / np.sqrt(200))


def test_one_more_pair_leaves_the_others_alone() -> None:
    moments = of(np.array([[1.0, 2.0], [3.0, 4.0]]))
    more = moments.beside((5.0, 9.0))
    assert (moments.n, more.n) == (2, 3)
    np.testing.assert_allclose(more.mean, [3.0, 5.0])
