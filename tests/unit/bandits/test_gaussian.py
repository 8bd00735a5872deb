from __future__ import annotations

import numpy as np
import pytest

from banditmesh.bandits.gaussian import inverse_of_lower, whitening


def test_the_whitening_of_a_precision_is_a_root_of_its_inverse() -> None:
    x = np.random.default_rng(0).normal(size=(3, 10, 4))
    precision = np.eye(4) + x.transpose(0, 2, 1) @ x
    white = whitening(precision)
    np.testing.assert_allclose(white.transpose(0, 2, 1) @ white, np.linalg.inv(precision), rtol=1e-10)


def test_a_precision_that_rounding_made_indefinite_is_lifted_and_the_others_are_exact() -> None:
    sound = np.diag([1.0, 2.0, 4.0])
    large = np.array([1.0, 1.0, 1e-9]) * 1e9
    indefinite = np.outer(large, large) - np.diag([0.0, 0.0, 2.0])
    white = whitening(np.stack([sound, indefinite]))
    np.testing.assert_allclose(white[0], np.diag([1.0, 2**-0.5, 0.5]))
    assert np.isfinite(white).all()
    # The direction that was seen stays well known: a deviation of about 1 / |large|.
    direction = np.array([1.0, 1.0, 0.0])
    assert np.linalg.norm(white[1] @ direction) < 1e-3 * np.linalg.norm(white[1] @ np.array([1.0, -1.0, 0.0]))


@pytest.mark.parametrize("d", [1, 2, 7, 16, 17, 18, 32, 64, 68])
def test_the_inverse_of_lower_triangles_is_exact_for_every_size(d: int) -> None:
    rng = np.random.default_rng(d)
    lower = np.tril(rng.normal(size=(3, d, d)), -1) / d + np.eye(d) * rng.uniform(1.0, 3.0, d)
    inverse = inverse_of_lower(lower)
    np.testing.assert_allclose(inverse @ lower, np.broadcast_to(np.eye(d), lower.shape), atol=1e-12)
    assert (np.triu(inverse, 1) == 0).all()


@pytest.mark.parametrize("d", [16, 32])
def test_the_whitening_of_a_precision_has_the_same_bits_alone_and_among_others(d: int) -> None:
    x = np.random.default_rng(0).normal(size=(100, 40, d))
    precision = np.eye(d) + x.transpose(0, 2, 1) @ x
    together = whitening(precision)
    for i in (0, 1, 50, 99):
        assert whitening(precision[i : i + 1]).tobytes() == together[i].tobytes()
