"""A content of a service that this user has muted a content of."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from banditmesh.runtime.mesh import Placement
from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.pipeline.filters.base import utc


class MutedService:
    """For ``mute.service_for`` after the mute, in every placement."""

    name: ClassVar[str] = "muted_service"

    def __init__(self, for_s: float) -> None:
        """``for_s``: how long after the mute, in seconds."""
        self._for_s = for_s

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`: for ``mute.service_for``."""
        return cls(placement.mute.service_for)

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        records = view.users.records
        fresh = records.mute_events["time_s"] + self._for_s > view.now_s
        if not fresh.any():
            return None
        salted = view.pool.services ^ np.repeat(view.salts, view.pool.counts)
        return view.matches(salted, np.sort(salted), records.mute_owners[fresh], records.mute_events["service"][fresh])

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        records = view.users.records
        own = (records.mute_owners == view.pool.owners[at]) & (records.mute_events["service"] == view.pool.services[at])
        return f"the user muted something of its service at {utc(float(records.mute_events['time_s'][own].max()))}"
