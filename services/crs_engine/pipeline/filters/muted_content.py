"""A content that this user has muted."""

from __future__ import annotations

from typing import ClassVar, Self

from banditmesh.runtime.mesh import Placement
from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.pipeline.filters.base import utc


class MutedContent:
    """For ``mute.content_for`` after the mute, in every placement."""

    name: ClassVar[str] = "muted_content"

    def __init__(self, for_s: float) -> None:
        """``for_s``: how long after the mute, in seconds."""
        self._for_s = for_s

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`: for ``mute.content_for``."""
        return cls(placement.mute.content_for)

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        records = view.users.records
        fresh = records.mute_events["time_s"] + self._for_s > view.now_s
        if not fresh.any():
            return None
        return view.matches(
            view.salted_contents,
            view.ordered_contents,
            records.mute_owners[fresh],
            records.mute_events["content"][fresh],
        )

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        records = view.users.records
        own = (records.mute_owners == view.pool.owners[at]) & (records.mute_events["content"] == view.pool.contents[at])
        return f"the user muted it at {utc(float(records.mute_events['time_s'][own].max()))}"
