"""A log, several policies, several seeds, one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.row import Decision
from banditmesh.decisions.spec import Spec, parse
from banditmesh.ope.evaluation import AUTO, WITHOUT_MODEL
from banditmesh.ope.interval import Interval
from banditmesh.replay.offpolicy import LEARN_EVERY, OfColumn, OffPolicy
from banditmesh.replay.online import Rejection, Simulation
from banditmesh.replay.reward_model import CrossFitted, Progressive, RewardModel
from banditmesh.replay.run import Run
from banditmesh.replay.targets import ColumnSpec
from banditmesh.runtime.errors import InvalidArgument

Method = Literal[
    "rejection", "simulate", "auto", "dr", "mrdr", "dm", "switch", "dros", "ips", "clipped_ips", "snips", "bounds"
]
REWARD_MODEL = "linear"
_ONLINE = ("rejection", "simulate")
_UNIFORM_WITHIN = 0.01


@dataclass(frozen=True)
class Options:
    """What to replay.

    Attributes:
        method: None: simulate when the first row has every candidate's reward, rejection when it was shown uniformly
            at random or without a propensity, else auto. Auto is the estimator with the smallest interval.
        limit: stop each run after so many matches.
        seeds: runs of each policy, with the seeds 0, 1, …
        uniform: rows without a propensity were shown uniformly at random.
        reward_model: the policy whose means are the reward model of the estimators that have one.
        rewards: the least and the largest reward there can be, for intervals; None: as the log shows.
    """

    method: Method | None = None
    limit: int | None = None
    seeds: int = 1
    uniform: bool = False
    reward_model: str = REWARD_MODEL
    rewards: Interval | None = None


def replay(
    log: Path,
    specs: Sequence[Spec],
    options: Options,
    progress: Callable[[int, float], None] = lambda rows, share: None,
) -> tuple[Method, list[list[Run]]]:
    """The method that was taken, and for each policy its runs, one a seed.

    Args:
        log: read in batches, once whatever the number of policies and seeds, and once more before to fit the reward
            model; a pipe, once.
        specs: the policies.
        options: see there.
        progress: told how many rows are done, and which share of the file they are (0 where its size is unknown).

    Raises:
        BrokenRow, NotFound, InvalidArgument: as `decisions.reader.read` does; also for an empty log.
        InvalidArgument: a row lacks what the method needs; it names file and line.
    """
    share = 0.0

    def tell(read: float) -> None:
        nonlocal share
        share = read

    column = next((spec for spec in specs if isinstance(spec, ColumnSpec)), None)
    log_batches = batches(log, tell, column.name if column else None)
    first = next(log_batches, None)
    if first is None:
        raise InvalidArgument(f"{log} has no rows", field="log", value=str(log))
    method = options.method or _fitting(first[0])
    _demand_off_policy(method, column)
    off_policy, modelled = method not in _ONLINE, _needs_model(method) and not _partial(method, first)
    model = _reward_model(log, first, parse(options.reward_model)) if modelled else None
    runs = [[_run(method, spec, seed, options, modelled=modelled) for seed in range(options.seeds)] for spec in specs]
    views = [spec.view(first) for spec in specs]
    rows = blocks = 0
    for decisions in chain([first], log_batches):
        for decision in decisions:
            _demand(method, decision, options)
            _demand_targets(decision, modelled=modelled)
        encoded = {view: encode(decisions, view) for view in {*views, *([model.view] if model else [])}}
        if off_policy:
            encoded = {view: _with_propensities(batch) for view, batch in encoded.items()}
        for start, stop in _parts(len(decisions), LEARN_EVERY if off_policy else len(decisions)):
            predicted = model.predict(encoded[model.view].part(start, stop), blocks) if model else None
            blocks += 1
            for view, each in zip(views, runs, strict=True):
                for run in each:
                    if not run.done:
                        run.take(encoded[view].part(start, stop), predicted)
        rows += len(decisions)
        progress(rows, share)
        if all(run.done for each in runs for run in each):
            break
    return method, runs


def _needs_model(method: Method) -> bool:
    return method == AUTO or (method not in _ONLINE and method not in WITHOUT_MODEL)


def _reward_model(log: Path, first: Sequence[Decision], spec: Spec) -> RewardModel:
    return CrossFitted(log, spec) if log.is_file() else Progressive(first, spec)


def _run(method: Method, spec: Spec, seed: int, options: Options, *, modelled: bool) -> Run:
    if method == "simulate":
        return Simulation(spec, seed, options.limit)
    if method == "rejection":
        return Rejection(spec, seed, options.limit)
    kind = OfColumn if isinstance(spec, ColumnSpec) else OffPolicy
    return kind(spec, seed, options.limit, method=method, modelled=modelled, rewards=options.rewards)


def _fitting(first: Decision) -> Method:
    if first.has_all_rewards and len(first.ids) > 1:
        return "simulate"
    return "rejection" if first.propensity is None or _is_uniform(first) else "auto"


def _demand(method: Method, decision: Decision, options: Options) -> None:
    """Raises InvalidArgument when the row lacks what the method needs."""
    message = hint = None
    _demand_range(decision, options.rewards)
    if method == "simulate":
        if not decision.has_all_rewards:
            message, hint = "simulate needs a reward in every candidate", "take rejection or auto"
    elif decision.shown is None:
        message, hint = f"{method} needs to know which candidate was shown", "take simulate"
    elif method == "rejection":
        if decision.propensity is not None and not _is_uniform(decision):
            message = (
                f"rejection needs candidates that were shown uniformly at random; here {len(decision.ids)} of "
                f"them and propensity {decision.propensity:g}"
            )
            hint = "take auto"
    elif decision.propensity is None and not options.uniform:
        message = f"{method} needs the propensity with which the candidate was shown"
        hint = "with --uniform a row without one was shown uniformly at random"
    if message is not None:
        raise InvalidArgument(f"{decision.where}: {message}", hint=hint)


def _partial(method: Method, first: Sequence[Decision]) -> bool:
    """Whether the log's target column says nothing of what was not shown, and the method can do without."""
    return method == AUTO and first[0].targets is not None and None in first[0].targets


def _demand_targets(decision: Decision, *, modelled: bool) -> None:
    if modelled and decision.targets is not None and None in decision.targets:
        message = "the target column has the probability of what was shown alone; a reward model needs all candidates'"
        raise InvalidArgument(f"{decision.where}: {message}", hint="take ips or snips, or log a list")


def _demand_off_policy(method: Method, column: ColumnSpec | None) -> None:
    if method in _ONLINE and column is not None:
        message = f"{column.text} can only be evaluated by logged propensities, not by {method}"
        raise InvalidArgument(message, hint="take auto, with --uniform where none are logged")


def _demand_range(decision: Decision, rewards: Interval | None) -> None:
    reward = decision.reward
    if rewards is not None and reward is not None and not rewards.lower <= reward <= rewards.upper:
        message = f"{decision.where}: is outside of the stated range, {rewards.lower:g} to {rewards.upper:g}"
        raise InvalidArgument(message, field="reward", value=reward)


def _is_uniform(decision: Decision) -> bool:
    propensity, n = decision.propensity, len(decision.ids)
    return propensity is not None and abs(propensity * n - 1) <= _UNIFORM_WITHIN


def _with_propensities(batch: LoggedBatch) -> LoggedBatch:
    """1 / n where none was logged."""
    uniform = 1.0 / np.diff(batch.candidates.offsets)
    return replace(batch, propensities=np.where(np.isnan(batch.propensities), uniform, batch.propensities))


def _parts(n: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, size):
        yield start, min(start + size, n)
