"""All estimators side by side on the same rows, the one among them that says most, and whether to believe it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Final, NamedTuple

import numpy as np

from banditmesh.bandits.errors import InvalidParams, NotMergeable
from banditmesh.bandits.hashing import mix64
from banditmesh.ope.bounds import Bounds
from banditmesh.ope.clipped_ips import ClippedIps
from banditmesh.ope.dm import Dm
from banditmesh.ope.dr import Dr
from banditmesh.ope.dros import Dros
from banditmesh.ope.estimator import Estimator
from banditmesh.ope.interval import Interval
from banditmesh.ope.ips import Ips
from banditmesh.ope.mrdr import Mrdr, Recalibration
from banditmesh.ope.rows import Rows
from banditmesh.ope.snips import Snips
from banditmesh.ope.support import Support
from banditmesh.ope.switch import Switch
from banditmesh.ope.unseen import Unseen

ESTIMATORS: Final[Mapping[str, Callable[[], Estimator]]] = {
    each.name: each for each in (Dr, Mrdr, Dm, Switch, Dros, Ips, ClippedIps, Snips, Bounds)
}
WITHOUT_MODEL: Final = tuple(name for name, each in ESTIMATORS.items() if not each().needs_model)
AUTO: Final = "auto"
_AT_ONCE = 4096


class Estimate(NamedTuple):
    """What one estimator says. `normal` is the interval of the central limit theorem, to compare with."""

    name: str
    value: float
    interval: Interval
    normal: Interval

    @property
    def plausible(self) -> bool:
        """Whether the value lies within the interval, as it does unless the weights are out of all proportion."""
        return self.interval.lower <= self.value <= self.interval.upper


class Evaluation:
    """Rows go in, estimates come out, at any time. Sums alone; two evaluations of different rows add up.

    Attributes:
        unseen: contents that were never shown; fed beside the rows by who knows the candidates.

    Args:
        names: which of `ESTIMATORS`; those without a reward model when the rows have none.
        confidence: of the intervals.
        rewards: the least and the largest reward there can be; None: as the log shows (`Support.rewards`).
    """

    def __init__(
        self,
        names: Sequence[str] = tuple(ESTIMATORS),
        *,
        confidence: float = 0.95,
        rewards: Interval | None = None,
    ) -> None:
        for name in names:
            if name not in ESTIMATORS:
                raise InvalidParams(f"{name!r} is no estimator: {', '.join(ESTIMATORS)}", field="names", value=name)
        self.unseen = Unseen()
        self._settings = (tuple(names), confidence, rewards)
        self._halves = [_Half(names), _Half(names)]
        self._waiting: list[Rows] = []

    def add(self, rows: Rows) -> None:
        """Takes in rows, in batches of any size."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= _AT_ONCE:
            self._take_in()

    def merge(self, other: Evaluation) -> None:
        """Adds the rows that `other` has seen. Raises `NotMergeable` when it has other estimators or settings."""
        if self._settings != other._settings:
            raise NotMergeable("differs in estimators, confidence or rewards", field="evaluation", value=None)
        self._take_in()
        other._take_in()
        for mine, theirs in zip(self._halves, other._halves, strict=True):
            mine.merge(theirs)
        self.unseen.merge(other.unseen)

    def _take_in(self) -> None:
        if not self._waiting:
            return
        rows = Rows.concat(self._waiting)
        self._waiting.clear()
        second = (mix64(rows.keys) & np.uint64(1)).astype(bool)
        parts = [rows.part(~second), rows.part(second)]
        for half, part in zip(self._halves, parts, strict=True):
            half.recalibration.add(part)
        lines = [half.recalibration for half in self._halves]
        for half, part, other in zip(self._halves, parts, reversed(lines), strict=True):
            half.add(part, other)

    @property
    def estimates(self) -> dict[str, Estimate]:
        """By name, in the order of the names."""
        self._take_in()
        return {name: self._estimate(each) for name, each in _added(*self._halves).estimators.items()}

    @property
    def support(self) -> Support:
        """Of all rows."""
        self._take_in()
        return next(iter(_added(*self._halves).estimators.values())).support

    @property
    def choice(self) -> Estimate:
        """The estimator without a bias that has the smallest interval, chosen so that the choice does not spoil it.

        Who takes the smallest of several intervals takes the one that is small by chance too. So each half of the rows
        (by their keys) chooses by itself; where both choose the same, it is that estimator's estimate on all rows, and
        else the first one's value within both intervals together.
        """
        self._take_in()
        names = [name for name, each in self._halves[0].estimators.items() if not each.biased]
        whole = _added(*self._halves)
        # A value that no policy can have is no answer, however narrow the interval beside it.
        possible = [name for name in names if self._estimate(whole.estimators[name]).plausible]
        names = possible or names
        picks = [
            min(names, key=lambda name: self._estimate(half.estimators[name]).interval.width) for half in self._halves
        ]
        if whole.estimators[names[0]].support.shifted and Bounds.name in names:
            return self._estimate(whole.estimators[Bounds.name])  # all have its interval, and it alone a value for it
        first, second = (self._estimate(whole.estimators[name]) for name in sorted(picks, key=names.index))
        both = first.interval.stretched_to(second.interval.lower).stretched_to(second.interval.upper)
        return first._replace(interval=both)

    def _estimate(self, estimator: Estimator) -> Estimate:
        _, confidence, rewards = self._settings
        return Estimate(
            estimator.name, estimator.value, estimator.interval(confidence, rewards), estimator.normal(confidence)
        )


class _Half:
    """Estimators of one half of the rows."""

    def __init__(self, names: Sequence[str]) -> None:
        self.estimators = {name: ESTIMATORS[name]() for name in names}
        self.recalibration = Recalibration()

    def add(self, rows: Rows, other: Recalibration) -> None:
        """Takes in rows; `mrdr` has its reward model from the other half."""
        for name, estimator in self.estimators.items():
            estimator.add(other.applied(rows) if name == Mrdr.name else rows)

    def merge(self, other: _Half) -> None:
        for name, estimator in self.estimators.items():
            estimator.merge(other.estimators[name])
        self.recalibration.merge(other.recalibration)


def _added(left: _Half, right: _Half) -> _Half:
    both = deepcopy(left)
    both.merge(right)
    return both
