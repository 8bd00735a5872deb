"""Ranked lists put together out of a log's rows, one a position, and what whole lists would have earned.

A row's propensity is conditional on what stands above it, so the product over a list's first rows is that of its
beginning. Where a row is missing (it was never seen, or its record was dropped), what stands below it has no known
weight: a list ends above its first hole, for all assumptions alike, and how much was left out is said.

``independence`` has to do with these conditional propensities too: it judges each position below what the log had above
it, so where lists are drawn without replacement it is off by as much as the two policies' upper positions differ. Where
that may be so, its estimates say it (`ListEstimate.caveat`); ``cascade`` has what stands above in its weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.ope.interval import Interval
from banditmesh.ope.rows import Floats
from banditmesh.ope.slate_difference import SlateDifference
from banditmesh.ope.slates import ASSUMPTIONS, Assumption, ListRows, SlateIps

APART: Final = 4096
"""A list's rows stand at most so many rows apart: engines write side by side, each a list at a time."""
_FEWEST_EFFECTIVE: Final = 100.0
_LEFT_OUT: Final = 0.01
_MOVED: Final = 0.01
"""Mean distance from 1 of the weights of what stands above, below which two policies have the same upper positions."""


class Positions(NamedTuple):
    """n rows of lists, in the order of the log.

    Attributes:
        lists: uint64[n], which list.
        positions: int64[n], from 0.
        propensities, targets: float64[n], see `ListRows`.
        rewards: by metric, float64[n].
        spent: bool[n], whether what stands directly above could not have stood here too.
        base: float64[n], the targets of another policy to compare with; None: there is none.
    """

    lists: NDArray[np.uint64]
    positions: NDArray[np.int64]
    propensities: Floats
    targets: Floats
    rewards: Mapping[str, Floats]
    spent: NDArray[np.bool_]
    base: Floats | None = None

    def part(self, at: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """Some of the rows."""
        rewards = {metric: each[at] for metric, each in self.rewards.items()}
        base = None if self.base is None else self.base[at]
        return type(self)(
            self.lists[at],
            self.positions[at],
            self.propensities[at],
            self.targets[at],
            rewards,
            self.spent[at],
            base,
        )

    @classmethod
    def concat(cls, parts: Sequence[Positions]) -> Self:
        """All rows of all parts, of which there is at least one."""
        return cls(
            np.concatenate([part.lists for part in parts]),
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.propensities for part in parts]),
            np.concatenate([part.targets for part in parts]),
            {metric: np.concatenate([part.rewards[metric] for part in parts]) for metric in parts[0].rewards},
            np.concatenate([part.spent for part in parts]),
            None if parts[0].base is None else np.concatenate([part.base for part in parts if part.base is not None]),
        )


@dataclass(frozen=True)
class ListEstimate:
    """What one assumption says of a metric: its sum over a list, the mean over lists.

    Attributes:
        effective: Kish's effective number of contents.
        mean_weight: 1 where the log supports the policy.
        shifted: whether it is certainly less.
        caveat: why this assumption is not to be believed here, though others may be; empty: nothing is known against
        it.
    """

    value: float
    interval: Interval
    effective: float
    mean_weight: float
    shifted: bool
    caveat: str


class ListDifference(NamedTuple):
    """What one assumption says of how much more a list earns than by another policy."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class ListJudgement:
    """What whole lists would have earned.

    Attributes:
        lists: how many.
        mean_length: positions of a list, those that are used.
        left_out: share of the positions that stand below a hole.
        estimates: by metric and assumption.
        logged: by metric, what the lists of the log had.
        differences: by metric and assumption, what a list earns more than by the policy that it is compared with; the
            interval is paired, list by list. None where there is no such policy.
    """

    lists: int
    mean_length: float
    left_out: float
    estimates: Mapping[str, Mapping[Assumption, ListEstimate]]
    logged: Mapping[str, float]
    differences: Mapping[str, Mapping[Assumption, ListDifference]] | None

    @property
    def warnings(self) -> list[str]:
        """Why it should not be believed, in words."""
        found = []
        if self.left_out > _LEFT_OUT:
            found.append(
                f"{self.left_out:.0%} of the positions of lists are left out: one above them is not in the log"
            )
        for assumption, each in next(iter(self.estimates.values())).items():
            if each.effective < _FEWEST_EFFECTIVE:
                found.append(
                    f"lists by {assumption}: the effective number of contents is {each.effective:.3g} of "
                    f"{self.lists * self.mean_length:.0f}"
                )
        cascade = next(iter(self.estimates.values()))["cascade"]
        if cascade.shifted:
            found.append(
                f"lists by cascade: the mean weight is {cascade.mean_weight:.3g} and not 1: the log never showed "
                "some of what would stand there, and the sums lack what it earns"
            )
        for metric, estimates in self.estimates.items():
            weak, strong = estimates["cascade"].interval, estimates["independence"].interval
            if weak.upper < strong.lower or strong.upper < weak.lower:
                found.append(
                    f"{metric} of lists: independence and cascade contradict each other, so what stands above a "
                    "content matters, to users or in the draw; independence is not to be believed"
                )
        return found


class ListEvaluation:
    """Rows go in, estimates come out, at any time. Sums alone, and the rows of the last lists.

    Args:
        metrics: what a row has rewards of.
        compared: whether rows have the targets of another policy to compare with.
    """

    def __init__(self, metrics: Sequence[str], *, compared: bool = False) -> None:
        self._estimators = {metric: [SlateIps(each) for each in ASSUMPTIONS] for metric in metrics}
        self._differences = {metric: [SlateDifference(each) for each in ASSUMPTIONS] for metric in metrics if compared}
        self._sums = dict.fromkeys(metrics, 0.0)
        self._below = self._spent = 0
        self._moved = 0.0  # sum over the positions below others of how far the weight of what stands above is from 1
        self._used = self._seen = 0
        self._longest = 0
        self._waiting: list[Positions] = []

    def add(self, rows: Positions) -> None:
        """Takes in rows, in batches of any size; those with a position below 0 are of no list."""
        of_lists = rows.positions >= 0
        if not of_lists.any():
            return
        self._waiting.append(rows if of_lists.all() else rows.part(of_lists))
        if sum(len(each.lists) for each in self._waiting) >= 2 * APART:
            self._take_in(APART)

    def _take_in(self, apart: int) -> None:
        """Takes lists in whose last row stands at least `apart` rows before the newest one."""
        if not self._waiting:
            return
        rows = Positions.concat(self._waiting)
        _, first, of = np.unique(rows.lists, return_index=True, return_inverse=True)
        last = np.zeros(len(first), np.int64)
        np.maximum.at(last, of, np.arange(len(of)))
        ended = (last < len(of) - apart)[of]
        self._waiting = [] if ended.all() else [rows.part(~ended)]
        if ended.any():
            self._learn(rows.part(ended), first[of[ended]])

    def _learn(self, rows: Positions, order: NDArray[np.int64]) -> None:
        """`order`: int64[n], the same for the rows of a list; lists are taken in by it."""
        sorted_rows = np.lexsort((rows.positions, order))
        rows, order = rows.part(sorted_rows), order[sorted_rows]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(order)) + 1, [len(order)]])
        ranks = segments.ranks(starts)
        whole = np.minimum.reduceat(np.where(rows.positions == ranks, len(order), ranks), starts[:-1])
        used = ranks < np.repeat(whole, np.diff(starts))
        self._seen += len(used)
        self._used += int(used.sum())
        if not used.any():
            return
        self._longest = max(self._longest, 1 + int(ranks[used].max()))
        rows, lists = rows.part(used), order[used]
        self._note(ListRows(lists, rows.propensities, rows.propensities, rows.targets), rows.spent)
        for metric, estimators in self._estimators.items():
            given = ListRows(lists, rows.rewards[metric], rows.propensities, rows.targets)
            for estimator in estimators:
                estimator.add(given)
            if metric in self._differences:
                assert rows.base is not None, "rows that are compared have both targets"
                base = ListRows(lists, rows.rewards[metric], rows.propensities, rows.base)
                for difference in self._differences[metric]:
                    difference.add(given, base)
            self._sums[metric] += float(rows.rewards[metric].sum(dtype=np.float64))

    def _note(self, rows: ListRows, spent: NDArray[np.bool_]) -> None:
        below = np.flatnonzero(np.diff(rows.lists, prepend=-1) == 0)
        above = rows.weights("cascade")[below - 1]
        self._below += len(below)
        self._spent += int(spent[below].sum())
        self._moved += float(np.abs(above - 1.0).sum())

    def _caveat(self, assumption: Assumption) -> str:
        if assumption != "independence" or not self._spent or self._moved < _MOVED * self._below:
            return ""
        return (
            "lists are drawn without replacement, so what can stand at a position depends on what stands above it, "
            "and there independence goes by the log's lists, not the policy's: take cascade"
        )

    @property
    def judgement(self) -> ListJudgement | None:
        """What whole lists would have earned; None where no list has more than one position."""
        self._take_in(0)
        lists = next(iter(self._estimators.values()))[0].lists
        if self._longest < 2:
            return None
        return ListJudgement(
            lists,
            self._used / lists,
            1 - self._used / self._seen,
            {
                metric: {
                    each.assumption: ListEstimate(
                        each.value,
                        each.interval(),
                        each.effective,
                        each.mean_weight,
                        each.shifted,
                        self._caveat(each.assumption),
                    )
                    for each in estimators
                }
                for metric, estimators in self._estimators.items()
            },
            {metric: total / lists for metric, total in self._sums.items()},
            {
                metric: {each.assumption: ListDifference(each.value, each.interval()) for each in differences}
                for metric, differences in self._differences.items()
            }
            or None,
        )
