"""The reward model of DM, DR and their kin: a policy's means, never of a row that it has learned from.

A log that can be read twice is cross-fitted: a first pass fits one model for each fold, on all rows but those of the
fold, and the pass of the replay predicts each row by its fold's model. A pipe can be read once: there one model
predicts each part of the log before it learns from it. Link and prior are read off the log in both cases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from banditmesh.decisions.batch import LoggedBatch
from banditmesh.decisions.encoder import encode
from banditmesh.decisions.reader import batches
from banditmesh.decisions.row import Decision
from banditmesh.decisions.spec import Spec
from banditmesh.decisions.view import View
from banditmesh.fit.fit import scaled
from banditmesh.replay.offpolicy import LEARN_EVERY

FOLDS = 5
BLOCK = LEARN_EVERY
"""Rows in a row that are of one fold; blocks are dealt to the folds in turn."""
_SCALE_ROWS = 8192


class RewardModel(ABC):
    """Attributes:
    view: how batches must be encoded for it.
    """

    view: View

    @abstractmethod
    def predict(self, batch: LoggedBatch, block: int) -> NDArray[np.float32]:
        """float32[n_candidates], the expected rewards of a block's candidates; `block` counts from 0 over the log."""


class Folds:
    """One model for each fold, fitted on the rows of all others. A first pass over the log goes through `learn`.

    Args:
        spec: the policy that predicts.
        first: rows from the beginning of the log, which tell the scale of the rewards.
    """

    def __init__(self, spec: Spec, first: LoggedBatch) -> None:
        spec = scaled(spec, [first.shown_examples()])
        self._models = [spec.build() for _ in range(FOLDS)]
        self._start = 0

    def learn(self, batch: LoggedBatch) -> None:
        """Takes in the next rows of the log."""
        rows, flat = batch.shown_rows()
        folds = (self._start + rows // BLOCK) % FOLDS
        for fold, model in enumerate(self._models):
            others = folds != fold
            if others.any():
                model.learn(batch.examples_of(rows[others], flat[others]))
        self._start += -(-len(batch) // BLOCK)

    def predict(self, batch: LoggedBatch, block: int) -> NDArray[np.float32]:
        """See `RewardModel.predict`."""
        return _finite(self._models[block % FOLDS].score(batch.candidates).mean)


class CrossFitted(RewardModel):
    """One model for each fold. Fitting reads the log from its beginning to its end.

    Args:
        log: a file that can be read twice.
        spec: the policy that predicts.

    Raises:
        BrokenRow, InvalidArgument: as `decisions.reader.read` does; also for a log without rows.
    """

    def __init__(self, log: Path, spec: Spec) -> None:
        first = first_rows(log)
        self.view = spec.view(first)
        self._folds = Folds(spec, encode(first, self.view))
        for decisions in batches(log):
            self._folds.learn(encode(decisions, self.view))

    def predict(self, batch: LoggedBatch, block: int) -> NDArray[np.float32]:
        """See `RewardModel.predict`."""
        return self._folds.predict(batch, block)


class Progressive(RewardModel):
    """Predicts each block before it learns from it.

    Args:
        first: rows from the beginning of the log.
        spec: the policy that predicts.
    """

    def __init__(self, first: Sequence[Decision], spec: Spec) -> None:
        self.view = spec.view(first)
        self._model = scaled(spec, [encode(first, self.view).shown_examples()]).build()

    def predict(self, batch: LoggedBatch, block: int) -> NDArray[np.float32]:
        """See `RewardModel.predict`."""
        mean = self._model.score(batch.candidates).mean
        self._model.learn(batch.shown_examples())
        return _finite(mean)


def first_rows(log: Path) -> list[Decision]:
    """As many rows as tell the scale of the rewards, however rare they are, and fit into memory."""
    found: list[Decision] = []
    candidates = 0
    for decisions in batches(log):
        found += decisions
        candidates += sum(len(each.ids) for each in decisions)
        if len(found) >= _SCALE_ROWS or candidates >= 16 * _SCALE_ROWS:
            break
    return found


def _finite(mean: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(mean), mean, np.float32(0.0))
