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
from banditmesh.ope.difference import Pair
from banditmesh.ope.dr import doubly_robust
from banditmesh.ope.evaluation import AUTO, ESTIMATORS, WITHOUT_MODEL, Estimate, Evaluation
from banditmesh.ope.interval import Interval
from banditmesh.ope.lists import ListEvaluation, ListJudgement, Positions
from banditmesh.ope.rows import Rows
from banditmesh.ope.unseen import Unseen
from banditmesh.ope.warnings import warnings
from banditmesh.replay.run import Run
from banditmesh.runtime.errors import InvalidArgument

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

    Attributes:
        fallback: rows that the placement's fallback answered; they are learned from, and not judged.
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
        self.fallback = 0
        self._lists = ListEvaluation((REWARD,))
        self._method = method

    @property
    def answer(self) -> Estimate:
        """The estimate that the method asks for."""
        if self.fallback and not self.evaluation.support.n:
            raise nothing_of_a_policy(self.fallback)
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
        unseen_of(batch, probabilities, self.evaluation.unseen)
        self.fallback += int(batch.fallback.sum())
        self._lists.add(positions_of(batch, probabilities, {REWARD: batch.rewards}))
        for term in doubly_robust(rows, rows.weights).tolist():
            self.tally.add(term)
        self.tally.rows += len(batch)
        if self._learns:
            self._policy.learn(batch.shown_examples())

    def _of(self, batch: LoggedBatch) -> NDArray[np.float64]:
        """float64[n_candidates]: what the evaluated policy would do."""
        return self._probabilities(batch.candidates)


def nothing_of_a_policy(fallback: int) -> InvalidArgument:
    """The error of a log that has so many decisions of the fallback, and no others."""
    return InvalidArgument(
        f"the fallback answered all {fallback:,} decisions of the log: they say nothing of a policy", field="log"
    )


def rows_of(batch: LoggedBatch, probabilities: NDArray[np.float64], predicted: NDArray[np.float32] | None) -> Rows:
    """What estimators see of a batch: the decisions of policies, not those of the fallback.

    Whatever the policy, the fallback would have answered where it did, by its own scores: such a row says nothing of
    the policy, and would look like one that the log supports.

    Args:
        probabilities: float64[n_candidates], what the evaluated policy would do.
        predicted: float32[n_candidates], a reward model's means; None: there is none.
    """
    q = np.zeros(len(batch.candidates)) if predicted is None else predicted.astype(np.float64)
    expected = np.zeros(len(batch)) if predicted is None else segments.sums(probabilities * q, batch.candidates.offsets)
    rows = Rows(
        batch.lines.astype(np.uint64),
        batch.rewards.astype(np.float64),
        batch.propensities,
        probabilities[batch.shown],
        expected,
        q[batch.shown],
    )
    return rows.part(~batch.fallback) if batch.fallback.any() else rows


def pair_of(
    batch: LoggedBatch,
    probabilities: NDArray[np.float64],
    base: NDArray[np.float64],
    predicted: NDArray[np.float32] | None,
) -> Pair:
    """What the difference of two policies sees of a batch; `base`: float64[n_candidates], what the other one would
    do."""
    moved = segments.sums(np.abs(probabilities - base), batch.candidates.offsets) / 2
    rows, others = (rows_of(batch, each, predicted) for each in (probabilities, base))
    return Pair(rows, others, moved[~batch.fallback])


def unseen_of(batch: LoggedBatch, probabilities: NDArray[np.float64], unseen: Unseen) -> None:
    """Tell it what the policy would show, and what policies did."""
    kept = ~batch.fallback
    of_kept = np.repeat(kept, np.diff(batch.candidates.offsets))
    shown = np.cumsum(of_kept)[batch.shown[kept]] - 1
    unseen.add(batch.candidates.contents[of_kept], np.nan_to_num(probabilities[of_kept]), shown)


def positions_of(
    batch: LoggedBatch,
    probabilities: NDArray[np.float64],
    rewards: Mapping[str, NDArray[np.float32]],
    base: NDArray[np.float64] | None = None,
) -> Positions:
    """What estimators of ranked lists see of a batch: a list ends where the fallback begins to fill it.

    Args:
        probabilities: float64[n_candidates], what the evaluated policy would do.
        rewards: by metric, float32[n].
        base: float64[n_candidates], what a policy would do that it is compared with; None: there is none.
    """
    found = Positions(
        batch.lists,
        batch.positions,
        batch.propensities,
        probabilities[batch.shown],
        {metric: each.astype(np.float64) for metric, each in rewards.items()},
        _spent(batch),
        None if base is None else base[batch.shown],
    )
    return found.part(~batch.fallback) if batch.fallback.any() else found


def _spent(batch: LoggedBatch) -> NDArray[np.bool_]:
    """bool[n]: whether what stands directly above a position, on the row before, is no candidate for it any more.

    Where the row before is of another list, or in another batch, nothing is said: one such position of a log is enough.
    """
    follows = np.zeros(len(batch), np.bool_)
    follows[1:] = (batch.lists[1:] == batch.lists[:-1]) & (batch.positions[1:] == batch.positions[:-1] + 1)
    above = batch.candidates.contents[np.roll(batch.shown, 1)]
    offsets = batch.candidates.offsets
    there = segments.sums(batch.candidates.contents == np.repeat(above, np.diff(offsets)), offsets)
    spent: NDArray[np.bool_] = follows & (batch.positions > 0) & (there == 0)
    return spent


class OfColumn(OffPolicy):
    """The evaluated policy is one whose probabilities the log carries; of candidates not shown they may be unknown."""

    def _of(self, batch: LoggedBatch) -> NDArray[np.float64]:
        assert batch.targets is not None, "the log is read with its target column"
        return batch.targets
