"""What every exploration shares: broken scores rank last, ties are shared, a floor keeps every candidate possible."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Scores

TIE = 1e-6
"""Values closer to the best than this share of it are ties: equal candidates at other places in a batch may differ in
the last bits of float32 (2^-23 = 1.2e-7), for BLAS adds up in another order there."""


class Beliefs(NamedTuple):
    """Scores that are all finite, in float64[n_candidates] each, no deviation below 0."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


class Exploration(BaseModel, ABC):
    """A rule that gives each candidate of a decision the probability of being shown. Frozen; holds no state."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]

    floor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share f that is drawn uniformly over all candidates: p <- (1 - f) p + f / n.",
    )

    def probabilities(self, scores: Scores, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64[n_candidates], summing to 1 over each decision that has candidates.

        A candidate whose mean or deviation is not finite ranks last: it keeps its part of the floor alone. A decision
        without any finite score is drawn uniformly.

        Args:
            scores: float32[n_candidates] each.
            offsets: int64[n_decisions + 1].
        """
        usable = scores.usable()
        if np.count_nonzero(usable) == len(usable):
            shares = self._shares(_beliefs(scores), offsets)
        else:
            shares = self._shares_of_usable(scores, offsets, usable)
        if self.floor:
            counts = segments.lengths(offsets)
            shares *= 1.0 - self.floor
            shares += np.repeat(self.floor / np.maximum(counts, 1), counts)
        return shares

    def _shares_of_usable(
        self, scores: Scores, offsets: NDArray[np.int64], usable: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        kept = segments.kept_offsets(offsets, usable)
        shares = np.zeros(len(usable))
        shares[usable] = self._shares(_beliefs(Scores(scores.mean[usable], scores.deviation[usable])), kept)
        counts = segments.lengths(offsets)
        hopeless = np.repeat(segments.lengths(kept) == 0, counts)
        shares[hopeless] = (1.0 / np.repeat(counts, counts))[hopeless]
        return shares

    def bonus(self, scores: Scores) -> NDArray[np.float64]:
        """float64[n_candidates]: what is added to each mean before the best one is looked for; 0 where exploration is
        no bonus."""
        return np.zeros(len(scores.mean))

    @abstractmethod
    def _shares(self, beliefs: Beliefs, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """A new float64[n_candidates]: the probabilities before the floor."""


def share_among_best(values: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64[n]: 1 for the best of each segment; those that tie with it have equal parts. `values`: all finite."""
    width = segments.width(offsets)
    if width:
        # A matrix, and most often of one row: a third of the calls.
        rows = values.reshape(-1, width)
        best = np.maximum.reduce(rows, axis=1, keepdims=True)
        tied = rows >= best - TIE * np.abs(best)
        shares = tied.astype(np.float64)
        if np.count_nonzero(tied) > len(rows):  # one at least in every row, so more than one in some
            shares /= np.add.reduce(shares, axis=1, keepdims=True)
        return shares.ravel()
    counts = segments.lengths(offsets)
    best = segments.maxima(values, offsets)
    tied = values >= np.repeat(best - TIE * np.abs(best), counts)
    shares = tied.astype(np.float64)
    shares /= np.repeat(np.maximum(segments.sums(shares, offsets), 1.0), counts)
    return shares


def _beliefs(scores: Scores) -> Beliefs:
    return Beliefs(scores.mean.astype(np.float64), np.maximum(scores.deviation.astype(np.float64), 0.0))
