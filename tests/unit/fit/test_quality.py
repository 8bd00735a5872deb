from __future__ import annotations

import math

import numpy as np
import pytest

from banditmesh.fit.quality import auc, log_loss, quality


def brute_force_auc(positive: np.ndarray, predictions: np.ndarray) -> float:
    wins = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in predictions[positive]
        for low in predictions[~positive]
    ]
    return float(np.mean(wins))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auc_is_the_share_of_pairs_in_the_right_order(levels: int) -> None:
    rng = np.random.default_rng(levels)
    positive, predictions = rng.random(120) < 0.4, rng.integers(0, levels, 120) / levels
    assert auc(positive, predictions) == pytest.approx(brute_force_auc(positive, predictions), rel=1e-12)


def test_auc_needs_both_kinds_of_rows() -> None:
    assert auc(np.array([True, True]), np.array([0.1, 0.2])) is None


def test_log_loss_is_worked_out_by_hand() -> None:
    found = log_loss(np.array([True, False]), np.array([0.8, 0.4]))
    assert found == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)


def test_a_prediction_beyond_0_and_1_has_a_finite_loss() -> None:
    assert math.isfinite(log_loss(np.array([True, False]), np.array([-0.5, 1.5])))


def test_ratings_have_an_rmse_alone() -> None:
    found = quality(np.array([3.0, 5.0]), np.array([4.0, 4.0]))
    assert (found.rmse, found.auc, found.log_loss, found.loss) == (1.0, None, None, 1.0)
