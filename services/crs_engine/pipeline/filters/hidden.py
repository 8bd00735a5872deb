"""A content that its service hides."""

from __future__ import annotations

from typing import ClassVar

from services.crs_engine.catalog import HIDDEN
from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.pipeline.filters.base import Everywhere


class Hidden(Everywhere):
    """``Content.hidden``."""

    name: ClassVar[str] = "hidden"

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        hidden = view.flags & HIDDEN != 0
        return hidden if hidden.any() else None

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        return "its service hides it"
