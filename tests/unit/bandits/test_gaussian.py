from __future__ import annotations

import numpy as np

from banditmesh.bandits.gaussian import whitening


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
