"""What may be drawn next, given what has been drawn: how a rule about whole lists gets into a draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Scores


class Constraint(Protocol):
    """Blocks candidates at a position, or moves their scores there. The exploration sees what is left, by the scores as
    they are then, and renormalises: so propensities stay exact.

    A constraint is a function of what was chosen before, and of nothing that changes: asked twice it says the same,
    which is how an explanation finds out afterwards what was blocked where. It knows the candidates that it was made
    for, flat and with offsets like everything here, and works on all decisions at once.
    """

    @property
    def yields(self) -> bool:
        """Whether it gives way where it would leave a decision nobody: a wish (quota, pin), not a ban (cap)."""
        ...

    def blocks(self, before: NDArray[np.int64], free: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """bool[n_candidates]: which candidates must not get the next position; None: it blocks none of them.

        Args:
            before: int64[n_decisions, position], the flat index of the candidate at each position so far, -1 for none.
            free: bool[n_candidates], who can get the position as far as the constraints before this one go.
        """
        ...

    def shifts(self, before: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """float64[n_candidates]: what to add to each mean at the next position; None: nothing. `before`: as above."""
        ...


AnyConstraint = TypeVar("AnyConstraint", bound=Constraint)


def blocking(
    constraints: Sequence[AnyConstraint],
    before: NDArray[np.int64],
    left: NDArray[np.bool_],
    offsets: NDArray[np.int64],
) -> Iterator[tuple[AnyConstraint, NDArray[np.bool_]]]:
    """Each constraint that blocks somebody at the next position, with whom: bool[n_candidates], of those only that the
    constraints before it leave. One that yields blocks nobody in a decision of which it would leave nobody.

    Args:
        constraints: in their order; those that do not yield should stand first.
        before: as for `Constraint.blocks`.
        left: bool[n_candidates], who has not been drawn yet.
        offsets: int64[n_decisions + 1].
    """
    free = left
    if not left.any():
        return
    for constraint in constraints:
        blocked = constraint.blocks(before, free)
        if blocked is None:
            continue
        blocked = blocked & free
        if constraint.yields:
            nobody = segments.sums((free & ~blocked).astype(np.int64), offsets) == 0
            if nobody.any():
                blocked &= ~np.repeat(nobody, segments.lengths(offsets))
        if blocked.any():
            free = free & ~blocked
            yield constraint, blocked


def shifted(scores: Scores, constraints: Sequence[Constraint], before: NDArray[np.int64]) -> Scores:
    """The scores as the constraints want them at the next position; `before` as for `Constraint.shifts`."""
    mean = scores.mean
    for constraint in constraints:
        moved = constraint.shifts(before)
        if moved is not None:
            mean = (mean + moved).astype(np.float32)
    return scores if mean is scores.mean else Scores(mean, scores.deviation)
