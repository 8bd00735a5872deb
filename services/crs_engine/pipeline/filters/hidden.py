"""A content that its service hides."""

from __future__ import annotations

from typing import ClassVar

from services.crs_engine.catalog import HIDDEN
from services.crs_engine.pipeline.filters.base import Mask, View


class Hidden:
    """``Content.hidden``."""

    name: ClassVar[str] = "hidden"
    on_fallback: ClassVar[bool] = True

    def removes(self, view: View) -> Mask | None:
        """See `Filter.removes`."""
        hidden = view.flags & HIDDEN != 0
        return hidden if hidden.any() else None

    def because(self, view: View, at: int) -> str:
        """See `Filter.because`."""
        return "its service hides it"
