"""One policy with one seed on its way through a log."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Scores
from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.spec import Spec
from banditmesh.replay.tally import Tally
from banditmesh.replay.targets import SavedSpec


class Run(ABC):
    """State of a replay.

    Args:
        spec: what runs.
        seed: of its draws.
        limit: stop after so many matches; None: at the end of the log.
    """

    def __init__(self, spec: Spec, seed: int, limit: int | None) -> None:
        self.spec = spec
        self.seed = seed
        self.tally = Tally()
        self._limit = limit
        self._policy = spec.build()
        self._learns = self._policy.learns and not isinstance(spec, SavedSpec)
        self._exploration = spec.exploration()
        self._rng = np.random.default_rng(seed)

    @property
    def done(self) -> bool:
        """Whether the limit is reached."""
        return self._limit is not None and self.tally.matches >= self._limit

    @abstractmethod
    def take(self, batch: LoggedBatch, predicted: NDArray[np.float32] | None) -> None:
        """Goes through the decisions of a batch, in their order.

        Args:
            batch: as the policy's view shows it.
            predicted: float32[n_candidates], a reward model's means, for the estimators that want one.
        """

    def _probabilities(self, candidates: Candidates) -> NDArray[np.float64]:
        return self._exploration.probabilities(self._scores(candidates), candidates.offsets)

    def _scores(self, candidates: Candidates) -> Scores:
        scores = self._policy.score(candidates)
        self.tally.unusable += int((~scores.usable()).sum())
        return scores
