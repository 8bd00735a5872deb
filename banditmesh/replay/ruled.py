"""What rules left a policy to choose from, and without one of them: by what engines noted of their constraints.

A policy draws among the candidates that the rules leave, by scores that they have moved (`bandits.exploration.choice`).
Which ones these are depends on the rules, and on what stands above on the list, which is the log's: so it is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Scores
from banditmesh.decisions.row import Decision
from banditmesh.runtime.errors import InvalidArgument


class Left(NamedTuple):
    """What rules leave of n candidates.

    Attributes:
        free: bool[n], who can be shown.
        shifts: float64[n], what is added to their scores.
        shares: float64[n], what is added to them as a share of their absolute value.
    """

    free: NDArray[np.bool_]
    shifts: NDArray[np.float64]
    shares: NDArray[np.float64]

    def moved(self, scores: Scores) -> Scores:
        """The scores as rules move them."""
        by = self.shifts + self.shares * np.abs(scores.mean.astype(np.float64))
        return Scores((scores.mean + by).astype(np.float32), scores.deviation)

    def part(self, start: int, stop: int) -> Self:
        """Of some of the candidates."""
        return type(self)(self.free[start:stop], self.shifts[start:stop], self.shares[start:stop])


def left_by_rules(decisions: Sequence[Decision], without: str | None) -> Left:
    """What the rules leave of the candidates of some decisions, all of them or all but one.

    Raises:
        InvalidArgument: a decision does not say what rules did, and that is needed.
    """
    n = sum(len(each.ids) for each in decisions)
    free, shifts, shares = np.ones(n, np.bool_), np.zeros(n), np.zeros(n)
    start = 0
    for decision in decisions:
        mine = slice(start, start + len(decision.ids))
        start = mine.stop
        if decision.ruled is None:
            if without is not None:
                raise InvalidArgument(
                    f"{decision.where}: does not say what rules did, so nobody knows what there would be without "
                    f"{without}",
                    field="without_rules",
                    hint="engines say it since `rules` stands in sampled decisions (docs/archive.md): say --from",
                )
            continue
        free[mine][decision.ruled.free :] = False
        for effect in decision.ruled.effects:
            if effect.rule == without:
                free[mine][list(effect.adds)] = True
                free[mine][list(effect.drops)] = False
                continue
            if effect.shifts:
                shifts[mine] += effect.shifts
            if effect.shares:
                shares[mine] += effect.shares
    return Left(free, shifts, shares)
