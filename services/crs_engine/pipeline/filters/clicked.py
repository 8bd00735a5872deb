"""A content that this user has opened already."""

from __future__ import annotations

from typing import ClassVar, Self

from banditmesh.runtime.mesh import Placement
from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.pipeline.filters.base import utc


class Clicked:
    """Where the placement has ``hide_clicked``: what is among the clicks that the user's state remembers
    (``user_record.CLICKS``)."""

    name: ClassVar[str] = "clicked"

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`: where ``hide_clicked`` says so."""
        return cls() if placement.hide_clicked else None

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        records = view.users.records
        if not len(records.click_events):
            return None
        return view.matches(
            view.salted_contents, view.ordered_contents, records.click_owners, records.click_events["content"]
        )

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        records = view.users.records
        own = (records.click_owners == view.pool.owners[at]) & (
            records.click_events["content"] == view.pool.contents[at]
        )
        return f"the user clicked it at {utc(float(records.click_events['time_s'][own].max()))}"
