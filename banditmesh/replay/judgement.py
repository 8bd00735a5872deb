"""One policy judged on one log: what it would have earned, and how often it would have been clicked and muted.

The estimators, intervals and warnings are those of `banditmesh.ope`; the reward models are cross-fitted, one for each
metric, so that DR's predictions come from a model that has not learned from the row. A policy that learns does so row
by row, after its estimators have seen the row; a published model stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.row import Decision
from banditmesh.decisions.spec import Spec, parse
from banditmesh.ope.evaluation import Estimate, Evaluation
from banditmesh.ope.interval import Interval
from banditmesh.ope.support import Support
from banditmesh.ope.unseen import Unseen
from banditmesh.ope.warnings import warnings
from banditmesh.replay.offpolicy import LEARN_EVERY, rows_of
from banditmesh.replay.reward_model import CrossFitted, Relabel
from banditmesh.replay.run import Run
from banditmesh.runtime.errors import InvalidArgument

SHOWN_ESTIMATORS: Final = ("dr", "ips", "snips")
"""That every report has; `auto` is the one without a bias that says most."""
REWARD: Final = "reward"
RATES: Final = {"click_rate": "click", "mute_rate": "mute"}
"""Metric → the reaction that it counts."""
Progress = Callable[[str, int, float], None]
"""Told what is being done, how many rows of it, and which share of the log that is. May raise, to end the work."""


@dataclass(frozen=True)
class Judged:
    """One metric of the policy.

    Attributes:
        estimates: by estimator.
        best: the estimate to take.
        logged: what the policy that wrote the log had, the mean over the log.
    """

    estimates: Mapping[str, Estimate]
    best: Estimate
    logged: float


@dataclass(frozen=True)
class Judgement:
    """The policy on the log.

    Attributes:
        policy: how reports call it.
        rows: of the log.
        metrics: by name: reward, and click_rate and mute_rate where the log knows of reactions.
        support: the weights and what they say: effective rows, mean weight.
        never_shown: share of the policy's decisions that are contents which the log never showed.
        warnings: why it should not be believed.
        time_s: of the log's first and last row.
    """

    policy: str
    rows: int
    metrics: Mapping[str, Judged]
    support: Support
    never_shown: float
    warnings: tuple[str, ...]
    time_s: tuple[float, float]


class Policy(Run):
    """The evaluated policy, by its probabilities."""

    def take(self, batch: LoggedBatch, predicted: object) -> None:
        """Learn from a block, if it learns."""
        if self._learns:
            self._policy.learn(batch.shown_examples())

    def probabilities(self, batch: LoggedBatch) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """float64[n_candidates]."""
        return self._probabilities(batch.candidates)


def judge(
    log: Path,
    spec: Spec,
    *,
    reward_model: str = "linear",
    seed: int = 0,
    progress: Progress = lambda stage, rows, share: None,
) -> Judgement:
    """Evaluate a policy on a decision log that can be read twice.

    Raises:
        BrokenRow, NotFound, InvalidArgument: as `decisions.reader.read` does; also for an empty log, and for a row that
            does not say what was shown, or with which propensity.
    """
    first = next(batches(log), None)
    if first is None:
        raise InvalidArgument(f"{log} has no rows", field="log", value=str(log))
    relabels: dict[str, Relabel] = {REWARD: lambda rows: rows}
    if all(each.reactions is not None for each in first):
        relabels |= {metric: _whether(reaction) for metric, reaction in RATES.items()}
    models = {
        metric: CrossFitted(log, parse(reward_model), relabel, partial(progress, f"fitting {metric}", 0))
        for metric, relabel in relabels.items()
    }
    policy, view = Policy(spec, seed, None), spec.view(first)
    evaluations = {metric: Evaluation(rewards=None if metric == REWARD else Interval(0.0, 1.0)) for metric in relabels}
    unseen, sums = Unseen(), dict.fromkeys(relabels, 0.0)
    rows = blocks = 0
    share, times = 0.0, (first[0].time_s, first[0].time_s)

    def tell(read: float) -> None:
        nonlocal share
        share = read

    for decisions in batches(log, tell):
        for decision in decisions:
            _demand(decision)
        seen = encode(decisions, view)
        labelled = {metric: relabel(decisions) for metric, relabel in relabels.items()}
        encoded = {metric: encode(labelled[metric], models[metric].view) for metric in relabels}
        for start in range(0, len(decisions), LEARN_EVERY):
            block = seen.part(start, min(start + LEARN_EVERY, len(decisions)))
            probabilities = policy.probabilities(block)
            for metric, evaluation in evaluations.items():
                part = encoded[metric].part(start, start + len(block))
                evaluation.add(rows_of(part, probabilities, models[metric].predict(part, blocks)))
                sums[metric] += float(part.rewards.sum(dtype=np.float64))
            unseen.add(block.candidates.contents, np.nan_to_num(probabilities), block.shown)
            policy.take(block, None)
            blocks += 1
        rows += len(decisions)
        times = (times[0], decisions[-1].time_s)
        progress("evaluating", rows, share)
    whole = evaluations[REWARD]
    return Judgement(
        spec.text,
        rows,
        {metric: _judged(each, sums[metric] / rows) for metric, each in evaluations.items()},
        whole.support,
        unseen.share,
        tuple(warnings(whole.support, unseen, "row")),
        times,
    )


def _judged(evaluation: Evaluation, logged: float) -> Judged:
    return Judged(evaluation.estimates, evaluation.choice, logged)


def _whether(reaction: str) -> Relabel:
    """The reward is 1 where there was this reaction, else 0."""
    return lambda rows: [each._replace(reward=float(reaction in (each.reactions or ()))) for each in rows]


def _demand(decision: Decision) -> None:
    """Raises InvalidArgument when the row cannot be used."""
    if decision.shown is None or decision.propensity is None:
        lacks = "which candidate was shown" if decision.shown is None else "the propensity with which it was shown"
        raise InvalidArgument(f"{decision.where}: does not say {lacks}", hint="banditmesh replay has other methods")
