"""A content that its service hides."""

from __future__ import annotations

from typing import ClassVar, Self

from banditmesh.runtime.mesh import Placement
from services.crs_engine.catalog import HIDDEN
from services.crs_engine.pipeline.batch import Mask, View


class Hidden:
    """``Content.hidden``."""

    name: ClassVar[str] = "hidden"

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`: everywhere."""
        return cls()

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        hidden = view.flags & HIDDEN != 0
        return hidden if hidden.any() else None

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        return "its service hides it"
