"""Replays in which the log decides: the policy learns from every row, after its estimators have seen the row.

So each row is evaluated by a policy (and a reward model) that has not learned from it: progressive validation (Blum,
Kalai, Langford 1999), which keeps IPS and DR unbiased.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.spec import Spec
from banditmesh.ope.clipped_ips import ClippedIps
from banditmesh.ope.dm import Dm
from banditmesh.ope.dr import Dr
from banditmesh.ope.estimator import Estimator
from banditmesh.ope.ips import Ips
from banditmesh.ope.rows import Rows
from banditmesh.ope.snips import Snips
from banditmesh.replay.run import Run

LEARN_EVERY = 32
"""Rows that are scored together, before the policy learns from them."""


class OffPolicy(Run):
    """Estimates from logged propensities; the first of `estimators` is the answer, the others stand beside it."""

    def __init__(self, spec: Spec, seed: int, limit: int | None, *, doubly_robust: bool) -> None:
        super().__init__(spec, seed, limit)
        self.estimators: list[Estimator] = [Ips(seed=seed), ClippedIps(seed=seed), Snips(seed=seed)]
        if doubly_robust:
            self.estimators = [Dr(seed=seed), Dm(seed=seed), *self.estimators]
        self.weight = 0.0  # sum of the importance weights; about one a row when the propensities are right

    def take(self, batch: LoggedBatch, predicted: NDArray[np.float32] | None) -> None:
        """See `Run.take`."""
        offsets, shown = batch.candidates.offsets, batch.shown
        probabilities = self._probabilities(batch.candidates)
        q = np.zeros(len(batch.candidates)) if predicted is None else predicted.astype(np.float64)
        expected = segments.sums(probabilities * q, offsets)
        rewards = batch.rewards.astype(np.float64)
        keys = batch.lines.astype(np.uint64)
        rows = Rows(keys, rewards, batch.propensities, probabilities[shown], expected, q[shown])
        for estimator in self.estimators:
            estimator.add(rows)
        terms = expected + rows.weights * (rewards - rows.predicted)
        for term in terms.tolist():
            self.tally.add(term)
        self.tally.rows += len(batch)
        self.weight += float(rows.weights.sum())
        self._policy.learn(batch.shown_examples())
