"""Stage 3: take out what must not be shown, whoever proposes it. A filter is one small file, one line here, and its
parameters, if it has any, in ``banditmesh/runtime/placement_options.py``.

The first filter that removes a candidate is the one that an explanation names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime.placement import Placement
from services.crs_engine.pipeline.batch import View
from services.crs_engine.pipeline.filters.base import Filter
from services.crs_engine.pipeline.filters.clicked import Clicked
from services.crs_engine.pipeline.filters.duplicate import Duplicate
from services.crs_engine.pipeline.filters.eligible import Eligible
from services.crs_engine.pipeline.filters.expired import Expired
from services.crs_engine.pipeline.filters.frequency_cap import FrequencyCap
from services.crs_engine.pipeline.filters.hidden import Hidden
from services.crs_engine.pipeline.filters.muted import MutedContent, MutedService
from services.crs_engine.pipeline.filters.unknown_content import UnknownContent

FILTERS: Final[tuple[type[Filter], ...]] = (
    UnknownContent,
    Hidden,
    Expired,
    MutedContent,
    MutedService,
    Clicked,
    FrequencyCap,
    Eligible,
    Duplicate,  # the last one: it spares one copy of those that all others spare
)

KEPT: Final = -1


def enabled(placement: Placement) -> tuple[Filter, ...]:
    """The filters that a placement has, with their parameters."""
    return tuple(each for kind in FILTERS if (each := kind.enable(placement)) is not None)


def apply(view: View, filters: Sequence[Filter]) -> NDArray[np.int8]:
    """``int8[n]``: the position of the filter that removes each candidate, :data:`KEPT` where none does."""
    removed_by = np.full(len(view.pool), KEPT, np.int8)
    if not len(view.pool):
        return removed_by
    kept = np.ones(len(view.pool), np.bool_)
    for position, each in enumerate(filters):
        removes = each.removes(view, kept)
        if removes is not None:
            removed_by[removes & kept] = position
            kept = kept & ~removes
    return removed_by
