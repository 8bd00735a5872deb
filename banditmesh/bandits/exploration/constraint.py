"""What may not be drawn next, given what has been drawn: how a rule about whole lists gets into a draw."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Constraint(Protocol):
    """Blocks candidates at a position. The exploration renormalises over what is left, so propensities stay exact.

    A constraint is a function of what was chosen before, and of nothing that changes: asked twice it says the same,
    which is how an explanation finds out afterwards what was blocked where. It knows the candidates that it was made
    for, flat and with offsets like everything here, and works on all decisions at once.
    """

    def blocks(self, before: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """bool[n_candidates]: which candidates must not get the next position; None: it blocks none of them.

        Args:
            before: int64[n_decisions, position], the flat index of the candidate at each position so far, -1 for none.
        """
        ...
