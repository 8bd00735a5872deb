"""What each rule did at a position of one user's list, and what could have been drawn there without it: asked of the
constraints of the draw itself, afterwards. They say the same whenever they are asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.exploration.constraint import blocking, shifted
from services.crs_engine.pipeline.batch import Mask, Round, RuleConstraint, Slate
from services.crs_engine.pipeline.rules.base import Draw, Rule

Rebuilt = Mapping[str, Mapping[str, Rule]]
"""By a rule's name: the rules that are others when that one is not there, by their names."""


class Effect(NamedTuple):
    """What a rule did to a user's n candidates at a position, given what stands above it.

    Attributes:
        adds: bool[n], who could have had it only without the rule.
        drops: bool[n], who could not have had it without the rule: another one gives way to it.
        shifts: float64[n], what it adds to scores; None: nothing.
        shares: float64[n], what it adds to scores, as a share of their absolute value; None: nothing.
    """

    rule: str
    adds: Mask
    drops: Mask
    shifts: NDArray[np.float64] | None
    shares: NDArray[np.float64] | None


class Step(NamedTuple):
    """One position of a user's list.

    Attributes:
        free: bool[n], which of the user's candidates could have it.
        means: float32[n], by which means, that of the model and what rules add.
        effects: what each rule did that did anything.
    """

    free: Mask
    means: NDArray[np.float32]
    effects: Sequence[Effect]


class Effects:
    """Of one round on one user's list.

    Args:
        drawn: the round.
        slate: the lists as they are now, this round and later ones included.
        user: whose.
        rebuilt: see there.
    """

    def __init__(self, drawn: Round, slate: Slate, user: int, rebuilt: Rebuilt) -> None:
        self._drawn = drawn
        self._offsets = drawn.pool.offsets
        self._mine = slice(int(self._offsets[user]), int(self._offsets[user + 1]))
        rounds = slate.rounds[: next(at for at, each in enumerate(slate.rounds) if each is drawn)]
        before = replace(slate, filled=drawn.first, rounds=rounds)
        self._draw = Draw(drawn.view, drawn.pool, before, drawn.scores)
        self._rebuilt = rebuilt
        self._others = {name: self._without(name) for name in drawn.constraints}

    def _without(self, name: str) -> list[RuleConstraint]:
        """The constraints of the draw as they would be without a rule."""
        found = []
        for other, constraint in self._drawn.constraints.items():
            again = self._rebuilt.get(name, {}).get(other)
            made = constraint if again is None else again.constraint(self._draw)
            if other != name and made is not None:
                found.append(made)
        return sorted(found, key=lambda each: each.yields)

    def at(self, column: int) -> Step:
        """At the position that the choice's column stands for."""
        drawn, mine = self._drawn, self._mine
        before = drawn.choice.chosen[:, :column]
        left = np.zeros(len(drawn.pool), np.bool_)
        left[mine] = True
        left[before[before >= 0]] = False
        constraints = drawn.constraints
        free, blockers = self._free(list(constraints.values()), before, left)
        effects = []
        for name, constraint in constraints.items():
            # Who blocks nobody makes no difference, unless others count on it.
            alone = self._rebuilt.get(name) or id(constraint) in blockers
            without = self._free(self._others[name], before, left)[0] if alone else free
            adds, drops = (without & ~free)[mine], (free & ~without)[mine]
            shares = self._some(constraint.shares)
            shifts = self._some(constraint.shifts(before)) if constraint.shares is None else None
            if shifts is not None or shares is not None or adds.any() or drops.any():
                effects.append(Effect(name, adds, drops, shifts, shares))
        means = shifted(drawn.scores, list(constraints.values()), before).mean
        return Step(free[mine].copy(), means[mine].copy(), effects)

    def _some(self, values: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """float64[n]: those of the user's candidates; None where all of them are 0."""
        return None if values is None or not values[self._mine].any() else values[self._mine].copy()

    def _free(
        self, constraints: Sequence[RuleConstraint], before: NDArray[np.int64], left: Mask
    ) -> tuple[Mask, Collection[int]]:
        """bool[n]: who can have the position; and the ids of the constraints that block somebody."""
        free, blockers = left, set()
        for constraint, blocked in blocking(constraints, before, left, self._offsets):
            free = free & ~blocked
            blockers.add(id(constraint))
        return free, blockers
