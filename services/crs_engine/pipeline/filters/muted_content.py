"""A content that this user has muted."""

from __future__ import annotations

from typing import ClassVar

from services.crs_engine.pipeline.filters.base import Mask, View, utc


class MutedContent:
    """For ``mute.content_for`` after the mute, in every placement."""

    name: ClassVar[str] = "muted_content"
    on_fallback: ClassVar[bool] = True

    def removes(self, view: View) -> Mask | None:
        """See `Filter.removes`."""
        states = view.users.states
        fresh = states.mute_events["time_s"] + view.placement.config.mute.content_for > view.now_s
        if not fresh.any():
            return None
        return view.matches(
            view.salted_contents,
            view.ordered_contents,
            states.mute_owners[fresh],
            states.mute_events["content"][fresh],
        )

    def because(self, view: View, at: int) -> str:
        """See `Filter.because`."""
        states = view.users.states
        own = (states.mute_owners == view.pool.owners[at]) & (states.mute_events["content"] == view.pool.contents[at])
        return f"the user muted it at {utc(float(states.mute_events['time_s'][own].max()))}"
