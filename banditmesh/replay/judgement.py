"""One policy judged on one log: what it would have earned, and how often it would have been clicked and muted.

The estimators, intervals and warnings are those of `banditmesh.ope`; the reward models are cross-fitted, one for each
metric, so that DR's predictions come from a model that has not learned from the row. A policy that learns does so row
by row, after its estimators have seen the row; a published model stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Scores
from banditmesh.bandits.exploration.choice import among
from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.row import Decision
from banditmesh.decisions.spec import Spec, parse
from banditmesh.ope.difference import BOUNDS, Difference
from banditmesh.ope.evaluation import Estimate, Evaluation
from banditmesh.ope.interval import Interval
from banditmesh.ope.lists import ListEvaluation, ListJudgement
from banditmesh.ope.support import Support
from banditmesh.ope.unseen import Unseen
from banditmesh.ope.warnings import warnings
from banditmesh.replay.offpolicy import (
    LEARN_EVERY,
    REWARD,
    nothing_of_a_policy,
    pair_of,
    positions_of,
    rows_of,
    unseen_of,
)
from banditmesh.replay.reward_model import Folds, first_rows
from banditmesh.replay.ruled import Left, left_by_rules
from banditmesh.replay.run import Run
from banditmesh.runtime.errors import InvalidArgument

SHOWN_ESTIMATORS: Final = ("dr", "ips", "snips")
"""That every report has; `auto` is the one without a bias that says most."""
RATES: Final = {"click_rate": "click", "mute_rate": "mute"}
"""Metric → the reaction that it counts."""
Progress = Callable[[str, int, float], None]
"""Told what is being done, how many rows of it, and which share of the log that is. May raise, to end the work."""
Predicted = Mapping[str, NDArray[np.float32]]
"""By metric, float32[n_candidates]: what a reward model expects of them."""
Labels = Mapping[str, NDArray[np.float32]]
"""By metric, float32[n_rows]: what stands in the place of the rewards."""


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
class Gain:
    """What the policy would earn more without a rule: by the same decisions, each beside itself (`ope.difference`).

    Attributes:
        estimates: by metric.
        moved: share of the decisions that it would make otherwise.
        told: share of what moves that the log tells of; NaN where nothing moves.
    """

    estimates: Mapping[str, Estimate]
    moved: float
    told: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why it should not be believed, in words."""
        if all(each.name != BOUNDS for each in self.estimates.values()):
            return ()
        return (
            f"the log tells of {self.told:.0%} of what the rule moves: the interval of the difference spans whatever "
            "the rest might earn",
        )


@dataclass(frozen=True)
class Judgement:
    """The policy on the log.

    Attributes:
        policy: how reports call it.
        rows: of the log.
        metrics: by name: reward, and click_rate and mute_rate where the log knows of reactions.
        support: the weights and what they say: effective rows, mean weight.
        never_shown: share of the policy's decisions that are contents which the log never showed.
        fallback: rows beside them that the placement's fallback answered: they are left out, as it would have answered
            under this policy too.
        warnings: why it should not be believed.
        time_s: of the log's first and last row.
        lists: the same metrics of whole ranked lists; None where the log has none.
        without: the policy if one of the placement's rules were not there, by the rule's name.
        gain: of these, what it would earn more than with all rules.
    """

    policy: str
    rows: int
    metrics: Mapping[str, Judged]
    support: Support
    never_shown: float
    warnings: tuple[str, ...]
    time_s: tuple[float, float]
    lists: ListJudgement | None
    fallback: int
    without: Mapping[str, Judgement] = field(default_factory=dict)
    gain: Gain | None = None


class Policy(Run):
    """The evaluated policy, by its probabilities."""

    def take(self, batch: LoggedBatch, predicted: object) -> None:
        """Learn from a block, if it learns."""
        if self._learns:
            self._policy.learn(batch.shown_examples())

    def scores(self, batch: LoggedBatch) -> Scores:
        """Of all candidates."""
        return self._scores(batch.candidates)

    def probabilities(self, batch: LoggedBatch, scores: Scores, left: Left) -> NDArray[np.float64]:
        """float64[n_candidates], among those that the rules leave."""
        return among(self._exploration, left.moved(scores), batch.candidates.offsets, left.free)


class _Sums:
    """Of the policy under some rules: all estimators, metric by metric, and beside the policy under all rules."""

    def __init__(self, metrics: Sequence[str], *, compared: bool) -> None:
        self._unseen, self._logged = Unseen(), dict.fromkeys(metrics, 0.0)
        self._lists = ListEvaluation(metrics, compared=compared)
        ranges = {metric: None if metric == REWARD else Interval(0.0, 1.0) for metric in metrics}
        self._evaluations = {metric: Evaluation(rewards=each) for metric, each in ranges.items()}
        self._differences = {metric: Difference(rewards=each) for metric, each in ranges.items() if compared}
        self._fallback = 0

    def add(
        self,
        probabilities: NDArray[np.float64],
        base: NDArray[np.float64],
        parts: Mapping[str, LoggedBatch],
        predicted: Predicted,
    ) -> None:
        """Take in a block: by metric with its labels, and what the reward model predicts of its candidates.

        Args:
            probabilities: float64[n_candidates], under these rules.
            base: the same under all rules.
        """
        for metric, part in parts.items():
            self._evaluations[metric].add(rows_of(part, probabilities, predicted[metric]))
            self._logged[metric] += float(part.rewards[~part.fallback].sum(dtype=np.float64))
            if metric in self._differences:
                self._differences[metric].add(pair_of(part, probabilities, base, predicted[metric]))
        block = parts[REWARD]
        rewards = {metric: part.rewards for metric, part in parts.items()}
        self._lists.add(positions_of(block, probabilities, rewards, base if self._differences else None))
        unseen_of(block, probabilities, self._unseen)
        self._fallback += int(block.fallback.sum())

    def judgement(self, policy: str, time_s: tuple[float, float]) -> Judgement:
        """What came out."""
        support, lists = self._evaluations[REWARD].support, self._lists.judgement
        if not support.n:
            raise nothing_of_a_policy(self._fallback)
        gain = self._gain
        return Judgement(
            policy,
            support.n,
            {
                metric: Judged(each.estimates, each.choice, self._logged[metric] / support.n)
                for metric, each in self._evaluations.items()
            },
            support,
            self._unseen.share,
            (
                *warnings(support, self._unseen, "row"),
                *(lists.warnings if lists else ()),
                *(gain.warnings if gain else ()),
            ),
            time_s,
            lists,
            self._fallback,
            gain=gain,
        )

    @property
    def _gain(self) -> Gain | None:
        if not self._differences:
            return None
        first = self._differences[REWARD]
        return Gain({metric: each.estimate for metric, each in self._differences.items()}, first.moved, first.told)


def judge(
    log: Path,
    spec: Spec,
    *,
    reward_model: str = "linear",
    seed: int = 0,
    without: Sequence[str] = (),
    progress: Progress = lambda stage, rows, share: None,
) -> Judgement:
    """Evaluate a policy on a decision log that can be read twice, under the rules that the log was written under.

    Args:
        without: names of rules; the policy is judged without each of them too.

    Raises:
        BrokenRow, NotFound, InvalidArgument: as `decisions.reader.read` does; also for an empty log, and for a row that
            does not say what was shown, or with which propensity, or what rules did where one is to be without.
    """
    first = first_rows(log)
    if not first:
        raise InvalidArgument(f"{log} has no rows", field="log", value=str(log))
    for decision in first:
        _demand(decision)
    metrics = (REWARD, *(RATES if all(each.reactions is not None for each in first) else ()))
    model, share = parse(reward_model), 0.0
    view, model_view = spec.view(first), model.view(first)

    def tell(read: float) -> None:
        nonlocal share
        share = read

    def labelled(decisions: Sequence[Decision], batch: LoggedBatch) -> dict[str, LoggedBatch]:
        return {metric: replace(batch, rewards=each) for metric, each in _labels(metrics, decisions).items()}

    folds = {metric: Folds(model, each) for metric, each in labelled(first, encode(first, model_view)).items()}
    rows = 0
    for decisions in batches(log, tell):
        for metric, batch in labelled(decisions, encode(decisions, model_view)).items():
            folds[metric].learn(batch)
        rows += len(decisions)
        progress("fitting", rows, share)
    policy, rules = Policy(spec, seed, None), (None, *without)
    sums = {rule: _Sums(metrics, compared=rule is not None) for rule in rules}
    known: set[str] = set()
    rows = blocks = 0
    for decisions in batches(log, tell, ruled=True):
        for decision in decisions:
            _demand(decision)
            known.update(each.rule for each in (decision.ruled.effects if decision.ruled else ()))
        seen = encode(decisions, view)
        batches_of = labelled(decisions, seen if view == model_view else encode(decisions, model_view))
        left = {rule: left_by_rules(decisions, rule) for rule in rules}
        for start in range(0, len(decisions), LEARN_EVERY):
            end = min(start + LEARN_EVERY, len(decisions))
            block, flat = seen.part(start, end), seen.candidates.offsets[[start, end]].tolist()
            parts = {metric: batch.part(start, end) for metric, batch in batches_of.items()}
            predicted = {metric: folds[metric].predict(part, blocks) for metric, part in parts.items()}
            scores = policy.scores(block)
            under = {rule: policy.probabilities(block, scores, left[rule].part(*flat)) for rule in rules}
            for rule, probabilities in under.items():
                sums[rule].add(probabilities, under[None], parts, predicted)
            policy.take(block, None)
            blocks += 1
        rows += len(decisions)
        times = (first[0].time_s, decisions[-1].time_s)
        progress("evaluating", rows, share)
    found = sums[None].judgement(spec.text, times)
    return replace(found, without={rule: _without(rule, known, sums[rule], found) for rule in without})


def _without(rule: str, known: Collection[str], sums: _Sums, whole: Judgement) -> Judgement:
    found = sums.judgement(f"{whole.policy} without {rule}", whole.time_s)
    if rule in known:
        return found
    said = f"{rule} did nothing in any decision of the log: it never mattered, or was not in force yet"
    return replace(found, warnings=(*found.warnings, said))


def _labels(metrics: Sequence[str], decisions: Sequence[Decision]) -> Labels:
    found = {REWARD: np.array([each.reward for each in decisions], np.float32)}
    for metric in metrics:
        if metric != REWARD:
            found[metric] = np.array([RATES[metric] in (each.reactions or ()) for each in decisions], np.float32)
    return found


def _demand(decision: Decision) -> None:
    """Raises InvalidArgument when the row cannot be used."""
    if decision.shown is None or decision.propensity is None:
        lacks = "which candidate was shown" if decision.shown is None else "the propensity with which it was shown"
        raise InvalidArgument(f"{decision.where}: does not say {lacks}", hint="banditmesh replay has other methods")
