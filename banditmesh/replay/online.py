"""Replays in which the policy decides, sees the reward of its own decision alone, and learns from it at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.exploration.choice import Choice, choose
from banditmesh.decisions.batch import LoggedBatch
from banditmesh.replay.run import Run

_MOST_AT_ONCE = 64


class Simulation(Run):
    """Rows of full information: the policy picks, and gets its pick's own reward."""

    def take(self, batch: LoggedBatch, predicted: NDArray[np.float32] | None) -> None:
        """See `Run.take`."""
        for row in range(len(batch)):
            if self.done:
                return
            self.tally.rows += 1
            choice = self._choose(batch, row, row + 1)
            self._learn(batch, row, int(choice.chosen[0]), float(choice.propensity[0]))

    def _choose(self, batch: LoggedBatch, start: int, stop: int) -> Choice:
        """Picks for the decisions start:stop; `chosen` are flat indices into the whole batch."""
        candidates = batch.decisions(start, stop)
        drawn = choose(self._probabilities(candidates), candidates.offsets, self._rng)
        return Choice(drawn.chosen + batch.candidates.offsets[start], drawn.propensity)

    def _learn(self, batch: LoggedBatch, row: int, flat: int, propensity: float) -> None:
        reward = batch.rewards[row] if flat == batch.shown[row] else batch.outcomes[flat]
        self.tally.add(float(reward))
        if self._learns:
            self._policy.learn(batch.example(row, flat, float(reward), propensity))


class Rejection(Simulation):
    """Li, Chu, Langford, Wang 2011, Algorithm 2: of a uniform log, the rows where the policy picks what was shown.

    These are as good as a live run of as many decisions (their Theorem 1). The policy changes with a match alone, so
    the rows up to the next one are scored together.
    """

    def take(self, batch: LoggedBatch, predicted: NDArray[np.float32] | None) -> None:
        """See `Run.take`."""
        start = 0
        while start < len(batch) and not self.done:
            # One row in as many as there are candidates is a match: more at once would be scored in vain.
            expected = int(batch.candidates.offsets[start + 1] - batch.candidates.offsets[start])
            stop = min(start + min(expected, _MOST_AT_ONCE), len(batch))
            choice = self._choose(batch, start, stop)
            matches = np.flatnonzero(choice.chosen == batch.shown[start:stop])
            if len(matches):
                stop = start + int(matches[0]) + 1
                self._learn(batch, stop - 1, int(choice.chosen[matches[0]]), float(choice.propensity[matches[0]]))
            self.tally.rows += stop - start
            start = stop
