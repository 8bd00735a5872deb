"""What the clock says where a user is: ``time_zone`` of the request's context, else of the user's profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.features import FeatureSpec, Featurizer

TIME_ZONE: Final = "time_zone"
_QUARTER_S: Final = 900


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo | None:
    """The zone of that name; None: there is none."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def as_text(value: object) -> str:
    """A field of a profile as text: of several values the first; empty: there is none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    return "" if value is None else str(value)


def said(context: Mapping[str, str], profile: Mapping[str, object]) -> str:
    """The name of a user's zone; empty: nobody says it."""
    return context.get(TIME_ZONE, "") or as_text(profile.get(TIME_ZONE))


def moment_ids(names: tuple[str, ...], zone_name: str, now_s: float) -> NDArray[np.uint32] | None:
    """``uint32[n_names]``: the features ``hour`` and ``weekday`` in a zone; None: there is no such zone."""
    return _of_quarter(names, zone_name, int(now_s // _QUARTER_S))


@lru_cache(maxsize=4096)
def _of_quarter(names: tuple[str, ...], zone_name: str, quarter: int) -> NDArray[np.uint32] | None:
    """No clock of the world turns its hour within a quarter of one."""
    if zone(zone_name) is None:
        return None
    moments = Featurizer(FeatureSpec(context=names, time_zone=zone_name))
    ids: NDArray[np.uint32] = moments.users([{}], [{}], np.array([quarter * _QUARTER_S], float)).ids[0]
    return ids
