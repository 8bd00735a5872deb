"""Stage 7: what a round has chosen goes onto the lists, behind what is there."""

from __future__ import annotations

import numpy as np

from services.crs_engine.pipeline.batch import Round, Slate


def fill(slate: Slate, drawn: Round) -> Slate:
    """The lists with the round's choice at their ends. A choice never has more columns than a list has open positions
    (stage 6), and no holes."""
    users, _, _ = drawn.shown
    found = np.bincount(users, minlength=len(slate.group))
    return Slate(slate.group, slate.users, slate.filled + found, slate.open - found, (*slate.rounds, drawn))
