"""A service that this user does not use."""

from __future__ import annotations

from typing import ClassVar

from services.crs_engine.pipeline.filters.base import Mask, View
from services.crs_engine.user_features import USED_SERVICES


class Eligible:
    """Where the placement has ``eligible: used_services``: the user's profile must list the service."""

    name: ClassVar[str] = "eligible"
    on_fallback: ClassVar[bool] = False  # it is for those of whom nothing is known

    def removes(self, view: View) -> Mask | None:
        """See `Filter.removes`."""
        if view.placement.config.eligible == "all":
            return None
        used = view.placement.users.eligible(view.users.profile_rows)
        return ~used[view.pool.owners, view.pool.sources]

    def because(self, view: View, at: int) -> str:
        """See `Filter.because`."""
        service = view.placement.sources[view.pool.sources[at]].service
        return f"`{USED_SERVICES}` of the user's profile does not list {service}"
