"""Which k of a blend is taken after a replay."""

from __future__ import annotations

import numpy as np
import pytest

from banditmesh.fit.als import Replayed

COUNTS = np.array([0, 1, 1, 30, 30])
POPULAR = np.array([0.9, 0.4, 0.4, 0.1, 0.1])
PERSONAL = np.array([0.0, 0.2, 0.2, 0.3, 0.3])


def replayed(*of_k: tuple[float, float]) -> Replayed:
    """For each k the blend's gain of users with one thing liked, and with thirty."""
    blends = np.array([[0.9] * len(of_k), *([[few for few, _ in of_k]] * 2), *([[many for _, many in of_k]] * 2)])
    return Replayed(COUNTS, POPULAR, PERSONAL, blends, range(1, len(of_k) + 1))


@pytest.mark.parametrize(
    ("of_k", "best"),
    [
        (((0.9, 0.2), (0.4, 0.31), (0.45, 0.3)), 2),  # the first is best in the mean, and loses to taste
        (((0.9, 0.2), (0.39, 0.29)), 1),  # both lose somewhere: the second less
    ],
)
def test_the_k_is_taken_that_ranks_best_without_losing_to_an_end_anywhere(
    of_k: tuple[tuple[float, float], ...], best: int
) -> None:
    assert replayed(*of_k).best == best
