"""A content that this user was shown often enough."""

from __future__ import annotations

from typing import ClassVar, Self

from banditmesh.runtime.placement import Placement
from banditmesh.runtime.user_records import shows_within
from services.crs_engine.pipeline.batch import Mask, View


class FrequencyCap:
    """Where the placement has ``filters.frequency_cap``: a content that was shown ``shown`` times on the last ``days``
    days (UTC, today included), in whatever placement."""

    name: ClassVar[str] = "frequency_cap"

    def __init__(self, shown: int, days: int) -> None:
        self._shown = shown
        self._days = days

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`."""
        params = placement.filters.frequency_cap
        return None if params is None else cls(params.shown, params.days)

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        shown = view.users.records.shown_contents
        often = shows_within(shown, self._days, view.now_s) >= self._shown
        if not often.any():
            return None
        owners = view.users.records.shown_owners[often]
        return view.matches(view.salted_contents, view.ordered_contents, owners, shown["content"][often])

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        records = view.users.records
        own = (records.shown_owners == view.pool.owners[at]) & (
            records.shown_contents["content"] == view.pool.contents[at]
        )
        times = int(shows_within(records.shown_contents[own], self._days, view.now_s).sum())
        return f"the user was shown it {times} times in {self._days} days; frequency_cap allows {self._shown}"
