"""What a rule is, and what it sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Scores
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, Pool, RuleConstraint, Slate, View


class Items(NamedTuple):
    """The candidates of a pool, and behind them what earlier rounds have put on the lists.

    Attributes:
        contents: uint64[n_items], content keys.
        rows: int64[n_items], rows of the catalog.
        services: int64[n_items], positions in ``placement.services``.
    """

    contents: NDArray[np.uint64]
    rows: NDArray[np.int64]
    services: NDArray[np.int64]


class Sought(NamedTuple):
    """Candidates that a rule puts onto lists whatever their scores are.

    Attributes:
        candidates: bool[n].
        most: How many of them it wants on a list at most.
    """

    candidates: Mask
    most: int


@dataclass(frozen=True, eq=False)
class Draw:
    """A draw that is about to be made.

    Attributes:
        view: All that was proposed, with the catalog, the users and the time.
        pool: The candidates that the filters kept: what is drawn from.
        slate: The lists so far; a draw fills their open positions from the first one on.
        scores: What the recommender thinks of the candidates.
    """

    view: View
    pool: Pool
    slate: Slate
    scores: Scores

    @cached_property
    def items(self) -> Items:
        """What can stand on a list: ``items[:len(pool)]`` are the candidates."""
        numbers = self.view.placement.service_numbers
        everybody = np.arange(len(self.pool))
        parts = [(self.pool, everybody), *((each.pool, each.shown[2]) for each in self.slate.rounds)]
        return Items(
            np.concatenate([pool.contents[at] for pool, at in parts]),
            np.concatenate([pool.rows[at] for pool, at in parts]),
            np.concatenate([numbers[pool.sources[at]] for pool, at in parts]),
        )

    @cached_property
    def _placed(self) -> NDArray[np.int64]:
        """``int64[n_users, count]``: the item at each position that earlier rounds have filled, else -1."""
        found = np.full((len(self.slate.group), self.slate.group.count), -1)
        start = len(self.pool)
        for each in self.slate.rounds:
            users, columns, _ = each.shown
            found[users, each.first[users] + columns] = np.arange(start, start + len(users))
            start += len(users)
        return found

    def listed(self, before: NDArray[np.int64]) -> NDArray[np.int64]:
        """``int64[n_users, count]``: the item at each position of the lists, -1 where it is open. ``before``: as for
        `Constraint.blocks`."""
        if not before.shape[1]:
            return self._placed
        listed = self._placed.copy()
        users, columns = np.nonzero(before >= 0)
        listed[users, self.slate.filled[users] + columns] = before[users, columns]
        return listed

    def position(self, before: NDArray[np.int64]) -> NDArray[np.int64]:
        """``int64[n_users]``: which position of each list comes next."""
        position: NDArray[np.int64] = self.slate.filled + before.shape[1]
        return position

    def counted(self, candidates: Mask) -> NDArray[np.int64]:
        """``int64[n_users]``: how many of these candidates (bool[n]) each user has."""
        return np.bincount(self.pool.owners[candidates], minlength=len(self.slate.group))


class Restraint(ABC):
    """A constraint that does nothing: what a rule's own one begins from."""

    yields: bool = False
    shares: NDArray[np.float64] | None = None

    def blocks(self, before: NDArray[np.int64], free: Mask) -> Mask | None:
        """See `Constraint.blocks`."""
        return None

    def shifts(self, before: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """See `Constraint.shifts`."""
        return None

    @abstractmethod
    def because(self, at: int, before: NDArray[np.int64]) -> str:
        """See `RuleConstraint.because`."""


class Barred(Restraint):
    """These candidates (bool[n]) get no position at all."""

    def __init__(self, barred: Mask) -> None:
        self._barred = barred

    def blocks(self, before: NDArray[np.int64], free: Mask) -> Mask | None:
        """See `Constraint.blocks`."""
        return self._barred


class Rule(Protocol):
    """Says which candidate must not stand at which position of a list, or stands there with another score, given what
    stands before it.

    It works inside the draw: the exploration renormalises over what a rule leaves, so propensities stay exact.
    """

    name: ClassVar[str]
    """As the list ``rules`` of a placement calls it."""

    def __init__(self, params: Any, placement: Placement) -> None:
        """``params``: its section of ``mesh.yaml``."""
        ...

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """The rule applied to these candidates; None: it does nothing to any of them."""
        ...
