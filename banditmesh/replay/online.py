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
        start = 0
        while start < len(batch) and not self.done:
            # Decisions between which the policy stays as it is are made together: the same, in a third of the time.
            stop = min(start + self._unchanged(), len(batch))
            self._earn(batch, np.arange(start, stop), self._choose(batch, start, stop))
            self.tally.rows += stop - start
            start = stop

    def _earn(self, batch: LoggedBatch, rows: NDArray[np.int64], choice: Choice) -> None:
        chosen = choice.chosen
        rewards = np.where(chosen == batch.shown[rows], batch.rewards[rows], batch.outcomes[chosen])
        for reward in rewards.tolist():
            self.tally.add(reward)
        if self._learns:
            self._policy.learn(batch.examples(rows, chosen, rewards, choice.propensity))

    def _unchanged(self) -> int:
        """For how many decisions the policy stays as it is, not beyond the limit."""
        most = getattr(self._policy, "unchanged_for", 1) if self._learns else _MOST_AT_ONCE
        return most if self._limit is None else min(most, self._limit - self.tally.matches)

    def _choose(self, batch: LoggedBatch, start: int, stop: int) -> Choice:
        """Picks for the decisions start:stop; `chosen` are flat indices into the whole batch."""
        candidates = batch.decisions(start, stop)
        drawn = choose(self._probabilities(candidates), candidates.offsets, self._rng)
        return Choice(drawn.chosen + batch.candidates.offsets[start], drawn.propensity)


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
                self._learn(batch, stop - 1, float(choice.propensity[matches[0]]))
            self.tally.rows += stop - start
            start = stop

    def _learn(self, batch: LoggedBatch, row: int, propensity: float) -> None:
        reward = float(batch.rewards[row])
        self.tally.add(reward)
        if self._learns:
            self._policy.learn(batch.example(row, int(batch.shown[row]), reward, propensity))
