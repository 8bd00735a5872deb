"""How good predictions are: RMSE for any rewards, AUC and log loss for rewards that are 0 or 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_EDGE = 1e-7
"""A prediction outside (edge, 1 - edge), as a linear model gives, counts as the edge: the log loss stays finite."""


@dataclass(frozen=True)
class Quality:
    """Of predictions on rows that were not learned from. `auc` and `log_loss` are None unless every reward is 0 or 1,
    `auc` also when all are the same.
    """

    rows: int
    rmse: float
    auc: float | None
    log_loss: float | None

    @property
    def loss(self) -> float:
        """What early stopping looks at: log loss where there is one, else RMSE."""
        return self.rmse if self.log_loss is None else self.log_loss


def quality(rewards: Floats, predictions: Floats) -> Quality:
    """Of float64[n] rewards and as many predictions; n is at least 1."""
    rmse = float(np.sqrt(np.mean((rewards - predictions) ** 2)))
    if not np.isin(rewards, (0.0, 1.0)).all():
        return Quality(len(rewards), rmse, None, None)
    return Quality(len(rewards), rmse, auc(rewards == 1.0, predictions), log_loss(rewards == 1.0, predictions))


def auc(positive: NDArray[np.bool_], predictions: Floats) -> float | None:
    """P(a positive row's prediction is above a negative one's), ties counting half (Mann and Whitney 1947).

    From the mean ranks, in n log n. None when there is no positive or no negative row.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    _, inverse, counts = np.unique(predictions, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    above = float(mean_ranks[inverse[positive]].sum()) - n_positive * (n_positive + 1) / 2
    return above / (n_positive * n_negative)


def log_loss(positive: NDArray[np.bool_], predictions: Floats) -> float:
    """Mean of -log of the probability that was given to what happened."""
    chances = np.clip(predictions, _EDGE, 1 - _EDGE)
    return float(-np.mean(np.log(np.where(positive, chances, 1 - chances))))
