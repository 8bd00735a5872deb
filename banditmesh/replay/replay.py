"""A log, several policies, several seeds, one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.row import Decision
from banditmesh.decisions.spec import Spec, parse
from banditmesh.decisions.view import View
from banditmesh.replay.offpolicy import LEARN_EVERY, OffPolicy
from banditmesh.replay.online import Rejection, Simulation
from banditmesh.replay.run import Run
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument

Method = Literal["rejection", "ips", "dr", "simulate"]
REWARD_MODEL = "linear"
_UNIFORM_WITHIN = 0.01


@dataclass(frozen=True)
class Options:
    """What to replay.

    Attributes:
        method: None: simulate when the first row has every candidate's reward, rejection when it was shown uniformly
            at random or without a propensity, else dr.
        limit: stop each run after so many matches.
        seeds: runs of each policy, with the seeds 0, 1, …
        uniform: rows without a propensity were shown uniformly at random.
        reward_model: the policy whose means are the reward model of dr.
    """

    method: Method | None = None
    limit: int | None = None
    seeds: int = 1
    uniform: bool = False
    reward_model: str = REWARD_MODEL


def replay(
    log: Path,
    specs: Sequence[Spec],
    options: Options,
    progress: Callable[[int, float], None] = lambda rows, share: None,
) -> tuple[Method, list[list[Run]]]:
    """The method that was taken, and for each policy its runs, one a seed.

    Args:
        log: read once, in batches, whatever the number of policies and seeds.
        specs: the policies.
        options: see there.
        progress: told how many rows are done, and which share of the file they are (0 where its size is unknown).

    Raises:
        BrokenRow, NotFound, InvalidArgument: as `decisions.reader.read` does; also for an empty log.
        FailedPrecondition: a row lacks what the method needs; it names file and line.
    """
    share = 0.0

    def tell(read: float) -> None:
        nonlocal share
        share = read

    log_batches = batches(log, tell)
    first = next(log_batches, None)
    if first is None:
        raise InvalidArgument(f"{log} has no rows", field="log", value=str(log))
    method = options.method or _fitting(first[0])
    runs = [[_run(method, spec, seed, options.limit) for seed in range(options.seeds)] for spec in specs]
    views = [spec.view(first) for spec in specs]
    model = _RewardModel(parse(options.reward_model), first) if method == "dr" else None
    rows = 0
    for decisions in chain([first], log_batches):
        for decision in decisions:
            _demand(method, decision, options.uniform)
        encoded = {view: encode(decisions, view) for view in {*views, *([model.view] if model else [])}}
        if method in ("ips", "dr"):
            encoded = {view: _with_propensities(batch) for view, batch in encoded.items()}
        for start, stop in _parts(len(decisions), LEARN_EVERY if method in ("ips", "dr") else len(decisions)):
            predicted = model.take(encoded[model.view].part(start, stop)) if model else None
            for view, each in zip(views, runs, strict=True):
                for run in each:
                    if not run.done:
                        run.take(encoded[view].part(start, stop), predicted)
        rows += len(decisions)
        progress(rows, share)
        if all(run.done for each in runs for run in each):
            break
    return method, runs


class _RewardModel:
    """Predicts each part of the log before it learns from it."""

    def __init__(self, spec: Spec, first: Sequence[Decision]) -> None:
        self.view: View = spec.view(first)
        self._policy = spec.build()

    def take(self, batch: LoggedBatch) -> NDArray[np.float32]:
        mean = self._policy.score(batch.candidates).mean
        self._policy.learn(batch.shown_examples())
        return np.where(np.isfinite(mean), mean, np.float32(0.0))


def _run(method: Method, spec: Spec, seed: int, limit: int | None) -> Run:
    if method == "simulate":
        return Simulation(spec, seed, limit)
    if method == "rejection":
        return Rejection(spec, seed, limit)
    return OffPolicy(spec, seed, limit, doubly_robust=method == "dr")


def _fitting(first: Decision) -> Method:
    if first.has_all_rewards and len(first.ids) > 1:
        return "simulate"
    return "rejection" if first.propensity is None or _is_uniform(first) else "dr"


def _demand(method: Method, decision: Decision, uniform: bool) -> None:
    """Raises FailedPrecondition when the row lacks what the method needs."""
    message = hint = None
    if method == "simulate":
        if not decision.has_all_rewards:
            message, hint = "simulate needs a reward in every candidate", "take rejection, ips or dr"
    elif decision.shown is None:
        message, hint = f"{method} needs to know which candidate was shown", "take simulate"
    elif method == "rejection":
        if decision.propensity is not None and not _is_uniform(decision):
            message = (
                f"rejection needs candidates that were shown uniformly at random; here {len(decision.ids)} of "
                f"them and propensity {decision.propensity:g}"
            )
            hint = "take ips or dr"
    elif decision.propensity is None and not uniform:
        message = f"{method} needs the propensity with which the candidate was shown"
        hint = "with --uniform a row without one was shown uniformly at random"
    if message is not None:
        raise FailedPrecondition(f"{decision.where}: {message}", hint=hint)


def _is_uniform(decision: Decision) -> bool:
    propensity, n = decision.propensity, len(decision.ids)
    return propensity is not None and abs(propensity * n - 1) <= _UNIFORM_WITHIN


def _with_propensities(batch: LoggedBatch) -> LoggedBatch:
    """1 / n where none was logged."""
    uniform = 1.0 / np.diff(batch.candidates.offsets)
    propensities = np.where(np.isnan(batch.propensities), uniform, batch.propensities)
    return LoggedBatch(
        batch.lines, batch.times_s, batch.candidates, batch.shown, batch.rewards, propensities, batch.outcomes
    )


def _parts(n: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, size):
        yield start, min(start + size, n)
