"""A content that several logics propose is one candidate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.pipeline.filters.base import Everywhere


class Duplicate(Everywhere):
    """The source that stands first in the placement gets it; see ``docs/decisions/0007-duplicate-candidates.md``."""

    name: ClassVar[str] = "duplicate"

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        ordered = view.ordered_contents
        if not (ordered[1:] == ordered[:-1]).any():
            return None
        at = np.flatnonzero(kept)
        salted = view.salted_contents[at]
        order = np.argsort(salted, kind="stable")
        again = np.zeros(len(kept), np.bool_)
        again[at[order[1:]]] = salted[order[1:]] == salted[order[:-1]]
        return again

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        same = kept & (view.pool.contents == view.pool.contents[at]) & (view.pool.owners == view.pool.owners[at])
        first = int(np.argmax(same))
        name = view.placement.sources[view.pool.sources[first]].name
        return f"{name} proposes it too, and stands before this logic in the placement's sources"
