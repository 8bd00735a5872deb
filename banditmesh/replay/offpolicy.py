"""Replays in which the log decides: the policy learns from every row, after its estimators have seen the row.

So each row is evaluated by a policy that has not learned from it: progressive validation (Blum, Kalai, Langford 1999),
which keeps IPS and DR unbiased. The reward model's predictions come from outside (`banditmesh.replay.reward_model`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.spec import Spec
from banditmesh.ope.dr import doubly_robust
from banditmesh.ope.evaluation import AUTO, ESTIMATORS, WITHOUT_MODEL, Estimate, Evaluation
from banditmesh.ope.interval import Interval
from banditmesh.ope.lists import ListEvaluation, ListJudgement, Positions
from banditmesh.ope.rows import Rows
from banditmesh.ope.warnings import warnings
from banditmesh.replay.run import Run

REWARD = "reward"
LEARN_EVERY = 32
"""Rows that are scored together, before the policy learns from them."""


class OffPolicy(Run):
    """Estimates from logged propensities.

    The tally, and so the learning curve, is that of DR with a reward model and of IPS without one.

    Args:
        spec, seed, limit: see `Run`.
        method: the estimator that is the answer, or `auto`.
        modelled: whether there is a reward model; without one, the estimators that need none.
        rewards: the least and the largest reward there can be; None: as the log shows.
    """

    def __init__(
        self,
        spec: Spec,
        seed: int,
        limit: int | None,
        *,
        method: str = AUTO,
        modelled: bool = True,
        rewards: Interval | None = None,
    ) -> None:
        super().__init__(spec, seed, limit)
        self.evaluation = Evaluation(tuple(ESTIMATORS) if modelled else WITHOUT_MODEL, rewards=rewards)
        self._lists = ListEvaluation((REWARD,))
        self._method = method

    @property
    def answer(self) -> Estimate:
        """The estimate that the method asks for."""
        return self.evaluation.choice if self._method == AUTO else self.evaluation.estimates[self._method]

    @property
    def warnings(self) -> list[str]:
        """Why the answer should not be believed; none when all is well."""
        lists = self.lists
        found = warnings(self.evaluation.support, self.evaluation.unseen, "line")
        return [*found, *(lists.warnings if lists else ())]

    @property
    def lists(self) -> ListJudgement | None:
        """What whole ranked lists would have earned; None where the log has none."""
        return self._lists.judgement

    def take(self, batch: LoggedBatch, predicted: NDArray[np.float32] | None) -> None:
        """See `Run.take`."""
        probabilities = self._of(batch)
        rows = rows_of(batch, probabilities, predicted)
        self.evaluation.add(rows)
        self.evaluation.unseen.add(batch.candidates.contents, np.nan_to_num(probabilities), batch.shown)
        self._lists.add(positions_of(batch, probabilities, {REWARD: batch.rewards}))
        for term in doubly_robust(rows, rows.weights).tolist():
            self.tally.add(term)
        self.tally.rows += len(batch)
        if self._learns:
            self._policy.learn(batch.shown_examples())

    def _of(self, batch: LoggedBatch) -> NDArray[np.float64]:
        """float64[n_candidates]: what the evaluated policy would do."""
        return self._probabilities(batch.candidates)


def rows_of(batch: LoggedBatch, probabilities: NDArray[np.float64], predicted: NDArray[np.float32] | None) -> Rows:
    """What estimators see of a batch.

    Args:
        probabilities: float64[n_candidates], what the evaluated policy would do.
        predicted: float32[n_candidates], a reward model's means; None: there is none.
    """
    q = np.zeros(len(batch.candidates)) if predicted is None else predicted.astype(np.float64)
    expected = np.zeros(len(batch)) if predicted is None else segments.sums(probabilities * q, batch.candidates.offsets)
    return Rows(
        batch.lines.astype(np.uint64),
        batch.rewards.astype(np.float64),
        batch.propensities,
        probabilities[batch.shown],
        expected,
        q[batch.shown],
    )


def positions_of(
    batch: LoggedBatch, probabilities: NDArray[np.float64], rewards: Mapping[str, NDArray[np.float32]]
) -> Positions:
    """What estimators of ranked lists see of a batch; `rewards`: by metric, float32[n]."""
    return Positions(
        batch.lists,
        batch.positions,
        batch.propensities,
        probabilities[batch.shown],
        {metric: each.astype(np.float64) for metric, each in rewards.items()},
    )


class OfColumn(OffPolicy):
    """The evaluated policy is one whose probabilities the log carries; of candidates not shown they may be unknown."""

    def _of(self, batch: LoggedBatch) -> NDArray[np.float64]:
        assert batch.targets is not None, "the log is read with its target column"
        return batch.targets
