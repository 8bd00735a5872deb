"""A content whose time is over."""

from __future__ import annotations

from typing import ClassVar

from services.crs_engine.pipeline.filters.base import Mask, View, utc


class Expired:
    """``Content.expires_at``."""

    name: ClassVar[str] = "expired"
    on_fallback: ClassVar[bool] = True

    def removes(self, view: View) -> Mask | None:
        """See `Filter.removes`."""
        expired: Mask = view.catalog.expires_s(view.pool.rows) <= view.now_s
        return expired & (view.pool.rows >= 0) if expired.any() else None

    def because(self, view: View, at: int) -> str:
        """See `Filter.because`."""
        expires_s = float(view.catalog.expires_s(view.pool.rows[at : at + 1])[0])
        return f"it expired at {utc(expires_s)}; now is {utc(view.now_s)}"
