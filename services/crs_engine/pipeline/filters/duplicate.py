"""A content that several logics propose is one candidate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from services.crs_engine.pipeline.filters.base import Mask, View


class Duplicate:
    """The source that stands first in the placement gets it; see ``docs/decisions/duplicate-candidates.md``."""

    name: ClassVar[str] = "duplicate"
    on_fallback: ClassVar[bool] = False

    def removes(self, view: View) -> Mask | None:
        """See `Filter.removes`."""
        salted = view.salted_contents
        ordered = view.ordered_contents
        if not (ordered[1:] == ordered[:-1]).any():
            return None
        order = np.argsort(salted, kind="stable")
        again = np.zeros(len(salted), np.bool_)
        again[order[1:]] = salted[order[1:]] == salted[order[:-1]]
        return again

    def because(self, view: View, at: int) -> str:
        """See `Filter.because`."""
        start = view.pool.offsets[view.pool.owners[at]]
        first = start + int(np.argmax(view.pool.contents[start:] == view.pool.contents[at]))
        name = view.placement.sources[view.pool.sources[first]].name
        return f"{name} proposes it too, and stands before this logic in the placement's sources"
