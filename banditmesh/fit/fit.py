"""Off-line fitting: as many passes as help, stopped by rows that are held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from banditmesh.bandits.batch import Candidates, Examples, SparseRows
from banditmesh.bandits.hashed import HashedPolicy
from banditmesh.bandits.hashed_params import HashedParams
from banditmesh.bandits.linucb_hybrid import LinucbHybridParams
from banditmesh.bandits.policy import Policy, Tensors
from banditmesh.bandits.registry import POLICIES, load
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.row import Decision
from banditmesh.decisions.spec import Spec
from banditmesh.fit.averaging import TICKS_PER_PASS, Averaging
from banditmesh.fit.passes import Part, Passes
from banditmesh.fit.quality import Quality, quality
from banditmesh.runtime.errors import InvalidArgument

MOST_EPOCHS = 50
PATIENCE = 3


@dataclass(frozen=True)
class Options:
    """How to fit.

    Attributes:
        valid: early stopping looks at this log; None: at one row in ten of the log, if at all.
        test: the quality on this log is reported.
        epochs: at most so many passes; None: as many as help, up to 50. A policy that is sums takes one in any case.
        patience: stop when so many passes in a row have not lowered the loss.
        seed: of the order of the second and later passes.
    """

    valid: Path | None = None
    test: Path | None = None
    epochs: int | None = None
    patience: int = PATIENCE
    seed: int = 0


@dataclass(frozen=True)
class Fitted:
    """What came out. `spec` has parameters and features in force, those read off the log included."""

    spec: Spec
    policy: Policy
    examples: int
    epochs: int
    valid: tuple[Quality, ...]
    test: Quality | None


Progress = Callable[[int, int, int | None, Quality | None], None]
"""Told the epoch (from 1; 0 while the log is read before the first), the examples that it has gone over and those it
will go over (an estimate in the first, None while there is none), and at its end the quality on the held-out rows."""


def fit(log: Path, spec: Spec, options: Options, progress: Progress = lambda epoch, done, of, valid: None) -> Fitted:
    """The policy, fitted to the log.

    Without `valid` and `epochs`, a policy that is not sums is fitted twice: without one row in ten, to find how many
    passes are best, then with all rows and that many passes; with so few rows that nothing is held out, in one pass.

    Raises:
        BrokenRow, NotFound, InvalidArgument: as `decisions.reader.read` does; also for a log without rows.
    """
    first = _first_rows(log)
    view = spec.view(first)
    spec = replace(spec, features={"user": view.user, "cross": [list(pair) for pair in view.cross]})
    iterative = POLICIES[spec.policy].learns and not POLICIES[spec.policy].merges
    most = (options.epochs or MOST_EPOCHS) if iterative else 1  # sums are what they are after one pass
    divided = all(any(part.has(row.line) for row in first) for part in (Part.REST, Part.HELD_OUT))
    everything = Passes(log, view)
    if iterative and options.epochs != 1:  # the examples are kept for later passes in any case
        spec = scaled(spec, _reading(everything, progress))
    else:
        spec = scaled(spec, [encode(first, view).shown_examples()])
    if options.valid is not None:
        fitting = _Fitting(spec, options, progress)
        fitting.run(everything, most, Passes(options.valid, view))
    elif options.epochs is None and iterative and divided:
        search = _Fitting(spec, options, progress)
        search.run(everything.only(Part.REST), most, everything.only(Part.HELD_OUT))
        fitting = _Fitting(spec, options, progress)
        fitting.run(everything, search.best_epoch, None)
        fitting.history = search.history
    else:
        fitting = _Fitting(spec, options, progress)
        fitting.run(everything, most if options.epochs else 1, None)
    test = None if options.test is None else measure(fitting.policy, Passes(options.test, view).in_order(keep=False))
    return Fitted(spec, fitting.policy, fitting.examples, fitting.best_epoch, tuple(fitting.history), test)


class _Fitting:
    """One fit. `policy` is the one of the best epoch."""

    def __init__(self, spec: Spec, options: Options, progress: Progress) -> None:
        self.policy = spec.build()
        self.history: list[Quality] = []
        self.best_epoch = 0
        self.examples = 0
        self._spec, self._options, self._progress = spec, options, progress
        self._averaging = Averaging()
        self._best: Tensors = {}

    def run(self, log: Passes, epochs: int, held_out: Passes | None) -> None:
        """Passes over the log; from the second one on, it is the mean of the estimates that is measured and kept."""
        rng = np.random.default_rng(self._options.seed)
        for epoch in range(1, epochs + 1):
            self._pass(epoch, log.in_order(keep=epochs > 1) if epoch == 1 else log.shuffled(rng), log.examples)
            if held_out is None:
                self.best_epoch = epoch
                continue
            with self._averaged():
                self.history.append(measure(self.policy, held_out.in_order(keep=epochs > 1)))
                self._progress(epoch, self.examples, self.examples, self.history[-1])
                if self.history[-1].loss <= min(each.loss for each in self.history):
                    self.best_epoch = epoch
                    self._best = self.policy.tensors()
            if epoch - self.best_epoch >= self._options.patience:
                break
        if held_out is None:
            with self._averaged():
                self._best = self.policy.tensors()
        self.policy = load(self._spec.policy, self._spec.params, self._best)

    def _pass(self, epoch: int, log: Iterable[Examples], size: Callable[[int], int | None]) -> None:
        if epoch > 1:
            self.policy.start_epoch()
        done, ticks = 0, 0
        for examples in log:
            self.policy.learn(examples)
            done += len(examples)
            self._progress(epoch, done, size(done), None)
            if epoch > 1 and isinstance(self.policy, HashedPolicy) and done * TICKS_PER_PASS > ticks * self.examples:
                self._averaging.tick(self.policy)
                ticks += 1
        self.examples = done

    def _averaged(self) -> AbstractContextManager[None]:
        return self._averaging.instead(self.policy) if isinstance(self.policy, HashedPolicy) else nullcontext()


def measure(policy: Policy, examples: Iterable[Examples]) -> Quality:
    """The quality of the policy's means on these examples, of which there is at least one."""
    rewards: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    predictions: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    for batch in examples:
        n = len(batch)
        alone = Candidates(
            np.arange(n + 1), batch.contents, batch.logics, batch.services, SparseRows.empty(n), batch.features
        )
        mean = policy.score(alone).mean.astype(np.float64)
        rewards.append(batch.rewards.astype(np.float64))
        predictions.append(np.where(np.isfinite(mean), mean, 0.0))
    return quality(np.concatenate(rewards), np.concatenate(predictions))


def _reading(log: Passes, progress: Progress) -> Iterator[Examples]:
    done = 0
    for examples in log.in_order():
        done += len(examples)
        progress(0, done, log.examples(done), None)
        yield examples


def scaled(spec: Spec, log: Iterable[Examples]) -> Spec:
    """The SPEC with what it leaves open about the scale of rewards read off these examples, of which there is one.

    link: logit when every one is 0 or 1. prior_reward: their mean, to three digits. Only where the policy has these
    parameters and does not take them from its examples by itself, as `popularity` and `linucb` do.
    """
    params = POLICIES[spec.policy].Params
    found: dict[str, Any] = {}
    count, total, binary = 0, 0.0, True
    for examples in log:
        rewards = examples.rewards.astype(np.float64)
        count, total = count + len(rewards), total + float(rewards.sum())
        binary = binary and bool(np.isin(rewards, (0.0, 1.0)).all())
    if issubclass(params, HashedParams):
        found["link"] = "logit" if binary else "identity"
    if issubclass(params, (HashedParams, LinucbHybridParams)) and not spec.params.get("dense"):
        mean = float(f"{total / count:.3g}")
        logit = {**found, **spec.params}.get("link") == "logit"
        found["prior_reward"] = min(max(mean, 0.001), 0.999) if logit else mean
    return replace(spec, params={**found, **spec.params})


def _first_rows(log: Path) -> list[Decision]:
    for decisions in batches(log):
        return decisions
    raise InvalidArgument(f"{log} has no rows", field="log", value=str(log))
