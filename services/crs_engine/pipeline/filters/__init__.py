"""Stage 3: take out what must not be shown. A filter is one small file and one line here.

The first filter that removes a candidate is the one that an explanation names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.crs_engine.pipeline.filters.base import Filter, View
from services.crs_engine.pipeline.filters.clicked import Clicked
from services.crs_engine.pipeline.filters.duplicate import Duplicate
from services.crs_engine.pipeline.filters.eligible import Eligible
from services.crs_engine.pipeline.filters.expired import Expired
from services.crs_engine.pipeline.filters.hidden import Hidden
from services.crs_engine.pipeline.filters.muted_content import MutedContent
from services.crs_engine.pipeline.filters.muted_service import MutedService
from services.crs_engine.pipeline.filters.unknown_content import UnknownContent

FILTERS: Final[tuple[Filter, ...]] = (
    UnknownContent(),
    Hidden(),
    Expired(),
    MutedContent(),
    MutedService(),
    Clicked(),
    Eligible(),
    Duplicate(),
)
FALLBACK_FILTERS: Final[tuple[Filter, ...]] = tuple(each for each in FILTERS if each.on_fallback)

KEPT: Final = -1


def apply(view: View, filters: Sequence[Filter] = FILTERS) -> NDArray[np.int8]:
    """``int8[n]``: the position of the filter that removes each candidate, :data:`KEPT` where none does."""
    removed_by = np.full(len(view.pool), KEPT, np.int8)
    if not len(view.pool):
        return removed_by
    for position, each in enumerate(filters):
        removes = each.removes(view)
        if removes is not None:
            removed_by[removes & (removed_by == KEPT)] = position
    return removed_by
