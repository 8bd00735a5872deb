"""Where each user is in the space of contents' vectors, worked out at the request: a click counts at the next one, and
no stored vector goes stale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.retrieval.user_vector import Weights, pooled
from banditmesh.runtime.user_record import TASTE_BITS, dwell_s
from banditmesh.runtime.user_records import UserRecords
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.densities import Densities

_DWELL_S = np.array([dwell_s(code) for code in range(256)])
_OPENED = TASTE_BITS["click"] | TASTE_BITS["target"] | TASTE_BITS["dwell"]


def user_vectors(
    placement: CompiledPlacement, records: UserRecords, catalog: Catalog, densities: Densities, now_s: float
) -> NDArray[np.float32] | None:
    """``float32[n_users, d]``, as a token has them, 0 where a user has none; None where the placement needs none.

    Contents that are gone from the catalog count for nothing: it has all that live.
    """
    options = placement.user_vector
    if options is None:
        return None
    n = len(records)
    owners, taste = records.taste_owners, records.taste
    opened = taste["did"] & _OPENED != 0
    opened &= taste["did"] & TASTE_BITS["mute"] == 0
    owners, taste = owners[opened], taste[opened]
    firsts = np.searchsorted(owners, np.arange(n))
    newest = np.arange(len(owners)) - firsts[owners] < options.clicks
    owners, taste = owners[newest], taste[newest]
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=n), out=offsets[1:])
    # Older than the user's newest: the vector has length 1, and of a user who was away for long nothing would be left.
    times_s = taste["time_s"].astype(np.float64)
    newest_s = segments.maxima(times_s, offsets)[owners]
    weights = Weights(options.recency, options.target, options.dwell, options.inverse_popularity).of(
        newest_s - times_s,
        taste["did"] & TASTE_BITS["target"] != 0,
        _DWELL_S[taste["dwell"]],
        densities.popularity(placement.name, taste["content"], now_s),
    )
    return pooled(catalog.vectors(catalog.find(taste["content"])), weights, offsets)
