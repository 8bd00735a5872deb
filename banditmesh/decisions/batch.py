"""Logged decisions as the arrays that policies and estimators take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Examples, SparseRows


@dataclass(frozen=True, slots=True, eq=False)
class LoggedBatch:
    """n decisions of a log.

    Attributes:
        lines: int64[n], the row's number in the file.
        times_s: float64[n].
        candidates: of all n decisions.
        shown: int64[n], flat index into `candidates`, -1 in a row of full information.
        rewards: float32[n], of what was shown; NaN in a row of full information.
        propensities: float64[n], NaN where none was logged.
        outcomes: float32[n_candidates], each candidate's own reward; NaN where none is known.
        targets: float64[n_candidates], the probabilities of another policy that the log carries, NaN where unknown;
            None unless they were asked for.
        lists: uint64[n], equal for the positions of one ranked list.
        positions: int64[n], the place on it, from 0; -1 for a row of no list.
        fallback: bool[n], whether the placement's fallback answered, as it would have under any policy.
    """

    lines: NDArray[np.int64]
    times_s: NDArray[np.float64]
    candidates: Candidates
    shown: NDArray[np.int64]
    rewards: NDArray[np.float32]
    propensities: NDArray[np.float64]
    outcomes: NDArray[np.float32]
    targets: NDArray[np.float64] | None
    lists: NDArray[np.uint64]
    positions: NDArray[np.int64]
    fallback: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.lines)

    def decisions(self, start: int, stop: int) -> Candidates:
        """The candidates of the decisions start:stop, as views."""
        whole = self.candidates
        offsets = whole.offsets[start : stop + 1]
        flat = slice(int(offsets[0]), int(offsets[-1]))
        return Candidates(
            offsets - offsets[0],
            whole.contents[flat],
            whole.logics[flat],
            whole.services[flat],
            _cut(whole.context, slice(start, stop)),
            _cut(whole.features, flat),
        )

    def part(self, start: int, stop: int) -> LoggedBatch:
        """The decisions start:stop as a batch of their own, as views."""
        first, last = int(self.candidates.offsets[start]), int(self.candidates.offsets[stop])
        shown = self.shown[start:stop]
        return LoggedBatch(
            self.lines[start:stop],
            self.times_s[start:stop],
            self.decisions(start, stop),
            np.where(shown < 0, -1, shown - first),
            self.rewards[start:stop],
            self.propensities[start:stop],
            self.outcomes[first:last],
            None if self.targets is None else self.targets[first:last],
            self.lists[start:stop],
            self.positions[start:stop],
            self.fallback[start:stop],
        )

    def examples(
        self,
        rows: NDArray[np.int64],
        flat: NDArray[np.int64],
        rewards: NDArray[np.float32],
        propensities: NDArray[np.float64] | None = None,
    ) -> Examples:
        """What there is to learn when these candidates were shown and earned this.

        Args:
            rows: int64[k], decisions; one may stand several times.
            flat: int64[k], candidates, each of its decision.
            rewards: float32[k].
            propensities: float64[k]; None: as logged, and 1 where that is unknown.
        """
        whole = self.candidates
        if propensities is None:
            propensities = np.nan_to_num(self.propensities[rows], nan=1.0)
        return Examples(
            whole.contents[flat],
            whole.logics[flat],
            whole.services[flat],
            whole.context.take(rows).beside(whole.features.take(flat)),
            rewards.astype(np.float32, copy=False),
            propensities.astype(np.float32),
            self.times_s[rows],
            rewards > 0,
        )

    def example(self, row: int, flat: int, reward: float, propensity: float) -> Examples:
        """As `examples` for a single one, of which a replay makes one a decision: slices instead of index arrays."""
        whole, context, own = self.candidates, self.candidates.context, self.candidates.features
        shared = slice(int(context.offsets[row]), int(context.offsets[row + 1]))
        alone = slice(int(own.offsets[flat]), int(own.offsets[flat + 1]))
        ids = np.concatenate([context.ids[shared], own.ids[alone]])
        values = np.concatenate([context.values[shared], own.values[alone]])
        return Examples(
            whole.contents[flat : flat + 1],
            whole.logics[flat : flat + 1],
            whole.services[flat : flat + 1],
            SparseRows(np.array([0, len(ids)]), ids, values),
            np.array([reward], np.float32),
            np.array([propensity], np.float32),
            self.times_s[row : row + 1],
            np.array([reward > 0]),
        )

    def shown_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Decisions and flat candidates, int64[k] each: what was shown, or every candidate of a row of full
        information.
        """
        if (self.shown >= 0).all():
            return np.arange(len(self)), self.shown
        owners = np.repeat(np.arange(len(self)), np.diff(self.candidates.offsets))
        flat = np.arange(len(owners))
        kept = (self.shown[owners] < 0) | (self.shown[owners] == flat)
        return owners[kept], flat[kept]

    def shown_examples(self) -> Examples:
        """What the log itself teaches, for each of `shown_rows`."""
        return self.examples_of(*self.shown_rows())

    def examples_of(self, rows: NDArray[np.int64], flat: NDArray[np.int64]) -> Examples:
        """What the log teaches of these candidates, each with the number of its decision: int64[k] each."""
        rewards = np.where(self.shown[rows] < 0, self.outcomes[flat], self.rewards[rows])
        return self.examples(rows, flat, rewards)


def _cut(rows: SparseRows, part: slice) -> SparseRows:
    offsets = rows.offsets[part.start : part.stop + 1]
    entries = slice(int(offsets[0]), int(offsets[-1]))
    return SparseRows(offsets - offsets[0], rows.ids[entries], rows.values[entries])
