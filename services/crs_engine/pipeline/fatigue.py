"""How often a user was shown a candidate of late: features of the pair, worked out at the request from the user record.

A placement names them among the fields of its contents; a cross with another field makes them the user's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime.user_record import DAY_S, SHOWN_DAYS
from banditmesh.runtime.user_records import shows_within
from services.crs_engine.pipeline.batch import Pool, Users, user_salts


def content_shown(users: Users, pool: Pool, now_s: float) -> NDArray[np.int64]:
    """``int64[n]``: how often each candidate's user was shown the content on the last days that are remembered."""
    shown = users.records.shown_contents
    counts = shows_within(shown, SHOWN_DAYS, now_s)
    return _looked_up(pool, pool.contents, users.records.shown_owners, shown["content"], counts)


def service_shown(users: Users, pool: Pool, now_s: float) -> NDArray[np.int64]:
    """``int64[n]``: how often each candidate's user was shown something of its service today (UTC)."""
    shown = users.records.shown_services
    counts = np.where(shown["day"] == int(now_s // DAY_S), shown["count"], 0).astype(np.int64)
    return _looked_up(pool, pool.services, users.records.shown_service_owners, shown["service"], counts)


FATIGUE: Final[Mapping[str, Callable[[Users, Pool, float], NDArray[np.int64]]]] = {
    "content_shown": content_shown,
    "service_shown": service_shown,
}
"""What ``features.content`` may name besides the attributes of contents; in buckets that double."""


def _looked_up(
    pool: Pool,
    keys: NDArray[np.uint64],
    owners: NDArray[np.int64],
    known: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> NDArray[np.int64]:
    """``int64[n]``: the count of each candidate's key among those that are known of its user, 0 where there is none.

    Args:
        pool: The candidates.
        keys: ``uint64[n]``, a key of each.
        owners: ``int64[m]``, the user of each count.
        known: ``uint64[m]``, the key of each count; each key once for a user.
        counts: ``int64[m]``.
    """
    if not len(known):
        return np.zeros(len(keys), np.int64)
    salts = user_salts(len(pool.counts))
    salted = known ^ salts[owners]
    order = np.argsort(salted)
    salted = salted[order]
    wanted = keys ^ np.repeat(salts, pool.counts)
    at = np.minimum(np.searchsorted(salted, wanted), len(salted) - 1)
    return np.where(salted[at] == wanted, counts[order][at], 0)
