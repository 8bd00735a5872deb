"""Where a user is, and what the clock says there: for rules about countries and hours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from services.crs_engine.local_time import TIME_ZONE, as_text, zone
from services.crs_engine.pipeline.batch import Slate

COUNTRY = "country"


def said(slate: Slate, name: str) -> list[str]:
    """What each request's context says under a name; else the user's profile; empty: neither does."""
    return [
        request.context.get(name, "") or _field(profile, name)
        for request, profile in zip(slate.group.requests, slate.users.profiles, strict=True)
    ]


def local_times(slate: Slate, now_s: float, default: str) -> list[datetime]:
    """The time by each user's own clock; where the zone is not known, or there is none of that name: by ``default``."""
    return at(now_s, said(slate, TIME_ZONE), default)


def at(now_s: float, zones: Sequence[str], default: str) -> list[datetime]:
    """The time in each zone."""
    now = datetime.fromtimestamp(now_s, UTC)
    times = {name: now.astimezone(zone(name) or zone(default) or UTC) for name in set(zones)}
    return [times[name] for name in zones]


@lru_cache(maxsize=8192)
def _field(profile: bytes, name: str) -> str:
    """A field of a profile as text: of several values the first."""
    if not profile:
        return ""
    try:
        fields = json.loads(profile)
    except ValueError:
        return ""
    return as_text(fields.get(name)) if isinstance(fields, dict) else ""
