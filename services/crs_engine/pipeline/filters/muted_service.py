"""A content of a service that this user has muted a content of."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from services.crs_engine.pipeline.filters.base import Mask, View, utc


class MutedService:
    """For ``mute.service_for`` after the mute, in every placement."""

    name: ClassVar[str] = "muted_service"
    on_fallback: ClassVar[bool] = True

    def removes(self, view: View) -> Mask | None:
        """See `Filter.removes`."""
        states = view.users.states
        fresh = states.mute_events["time_s"] + view.placement.config.mute.service_for > view.now_s
        if not fresh.any():
            return None
        salted = view.pool.services ^ np.repeat(view.salts, view.pool.counts)
        return view.matches(salted, np.sort(salted), states.mute_owners[fresh], states.mute_events["service"][fresh])

    def because(self, view: View, at: int) -> str:
        """See `Filter.because`."""
        states = view.users.states
        own = (states.mute_owners == view.pool.owners[at]) & (states.mute_events["service"] == view.pool.services[at])
        return f"the user muted something of its service at {utc(float(states.mute_events['time_s'][own].max()))}"
