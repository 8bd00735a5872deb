"""What a filter is."""

from __future__ import annotations

from typing import ClassVar, Protocol, Self

from banditmesh.runtime.clock import utc as utc
from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, View


class Filter(Protocol):
    """Takes candidates out. Must not depend on the order of users, nor on who else is in the batch."""

    name: ClassVar[str]
    """As explanations and metrics call it, and the section ``filters`` of a placement if it has parameters there."""

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """The filter with the parameters that the placement gives it; None where the placement does not have it."""
        ...

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """bool[n]: which candidates must go; None: none of them, found out at less cost. ``kept``: bool[n], the
        candidates that no filter before this one removes."""
        ...

    def because(self, view: View, at: int, kept: Mask) -> str:
        """Why the candidate at that place in the pool must go, in words. ``kept``: bool[n], the candidates that no
        filter at all removes."""
        ...


class Everywhere:
    """A filter without parameters that every placement has."""

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`: everywhere."""
        return cls()
