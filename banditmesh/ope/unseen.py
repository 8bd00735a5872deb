"""Which share of its decisions the evaluated policy would give to contents that the log never showed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashing import mix64

_CELLS = 1 << 16
_ENOUGH = 5.0
"""Had the log shown a content as often as the policy would, so many times, it would have been seen (all but 0.7 %)."""


@dataclass
class Unseen:
    """Sums by content, hashed into 65 536 cells: what shares a cell with something shown counts as shown. Mergeable.

    Attributes:
        decisions: how many were added.
        mass: float64[65536], the policy's probability of a cell's contents, over all decisions.
        shown: bool[65536], whether the log has shown one of them.
    """

    decisions: int = 0
    mass: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_CELLS))
    shown: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(_CELLS, bool))

    def add(self, contents: NDArray[np.uint64], probabilities: NDArray[np.float64], shown: NDArray[np.int64]) -> None:
        """Takes in the candidates of n decisions, uint64[n_candidates] and float64[n_candidates], and which of them
        were shown, int64[n].
        """
        cells = (mix64(contents) % np.uint64(_CELLS)).astype(np.int64)
        np.add.at(self.mass, cells, probabilities)
        self.shown[cells[shown]] = True
        self.decisions += len(shown)

    def merge(self, other: Unseen) -> None:
        """Adds the decisions that `other` has seen."""
        self.decisions += other.decisions
        self.mass = self.mass + other.mass
        self.shown = self.shown | other.shown

    @property
    def share(self) -> float:
        """From 0 to 1. A content counts when the policy would have shown it five times at least and the log never did;
        so contents that are new in every decision do not count, and the log of a rare one may still be right.
        """
        never = self.mass[~self.shown & (self.mass >= _ENOUGH)].sum()
        return float(never / self.decisions) if self.decisions else 0.0
