"""A service that this user does not use."""

from __future__ import annotations

from typing import ClassVar, Self

from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.user_features import USED_SERVICES


class Eligible:
    """Where the placement has ``eligible: used_services``: the user's profile must list the service.

    A user whose services are not known (there is no profile, it does not say, or Redis is away) uses none of them, as
    far as the placement's sources go. The fallback is for just these users, and may show them every service.
    """

    name: ClassVar[str] = "eligible"

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """See `Filter.enable`: where ``eligible`` says ``used_services``."""
        return cls() if placement.eligible == "used_services" else None

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        profiles, pool = view.users.profile_rows, view.pool
        removed: Mask = ~profiles.used[pool.owners, pool.sources]
        removed &= profiles.knows_services[pool.owners] | ~view.placement.of_fallback[pool.sources]
        return removed

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        service = view.placement.sources[view.pool.sources[at]].service
        return f"`{USED_SERVICES}` of the user's profile does not list {service}"
