"""A content that this user has opened already."""

from __future__ import annotations

from typing import ClassVar, Self

from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.pipeline.filters.base import utc


class Clicked:
    """Where the placement has ``hide_clicked``: what is among the clicks that the user's state remembers
    (``UserRecords.clicked``)."""

    name: ClassVar[str] = "clicked"

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`: where ``hide_clicked`` says so."""
        return cls() if placement.hide_clicked else None

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        owners, contents, _ = view.users.records.clicked()
        if not len(contents):
            return None
        return view.matches(view.salted_contents, view.ordered_contents, owners, contents)

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        owners, contents, times_s = view.users.records.clicked()
        own = (owners == view.pool.owners[at]) & (contents == view.pool.contents[at])
        return f"the user clicked it at {utc(float(times_s[own].max()))}"
