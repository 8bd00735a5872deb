"""A content that nobody has described cannot be shown."""

from __future__ import annotations

from typing import ClassVar

from services.crs_engine.catalog import ABSENT
from services.crs_engine.pipeline.batch import Mask, View
from services.crs_engine.pipeline.filters.base import Everywhere


class UnknownContent(Everywhere):
    """Mapped, but not (or no longer) among the contents that the importer has got from the service's Data Provider."""

    name: ClassVar[str] = "unknown_content"

    def removes(self, view: View, kept: Mask) -> Mask | None:
        """See `Filter.removes`."""
        unknown = view.flags & ABSENT != 0
        return unknown if unknown.any() else None

    def because(self, view: View, at: int, kept: Mask) -> str:
        """See `Filter.because`."""
        key = f"{int(view.pool.contents[at]):016x}"
        return f"no content has the key {key}: its Data Provider never described it, or it has expired in Redis"
