"""A content whose time is over."""

from __future__ import annotations

from typing import ClassVar

from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.pipeline.filters.base import Everywhere, utc


class Expired(Everywhere):
    """``Content.expires_at``."""

    name: ClassVar[str] = "expired"

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        expired: Mask = view.catalog.expires_s(view.pool.rows) <= view.now_s
        return expired & (view.pool.rows >= 0) if expired.any() else None

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        expires_s = float(view.catalog.expires_s(view.pool.rows[at : at + 1])[0])
        return f"it expired at {utc(expires_s)}; now is {utc(view.now_s)}"
