"""What users near this user click now, out of all live contents: see ``banditmesh.retrieval.served``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from banditmesh.runtime.retrieval_options import Density as Options
from services.crs_engine.densities import Densities
from services.crs_engine.pipeline.retrievers.base import Asked, Proposed


class Density:
    """Proposes nothing before the first snapshot; contents that nobody was shown yet are `newest`'s to propose."""

    name: ClassVar[str] = "density"

    def __init__(self, densities: Densities) -> None:
        self._densities = densities

    def propose(self, asked: Asked) -> Proposed:
        """See `Retriever.propose`: the score is the smoothed rate of clicks near the user."""
        placement, options = asked.group.placement, asked.retrieval.options
        assert isinstance(options, Options)
        assert asked.users.vectors is not None
        served = self._densities.served[placement.name, options.params(placement.dimensions).model]
        services = placement.shown_services[asked.retrieval.services]
        rates = served.rates(services, options.smoothing, asked.now_s)
        if rates is None:
            none = np.zeros(0, np.int64)
            return Proposed(np.zeros(len(asked) + 1, np.int64), none.astype(np.uint64), none, none.astype(np.float32))
        found = rates.nearest(asked.users.vectors[asked.who], asked.retrieval.share, options.optimism)
        offsets = np.zeros(len(asked) + 1, np.int64)
        np.cumsum([len(each.rows) for each in found], out=offsets[1:])
        rows = np.concatenate([each.rows for each in found])
        contents = rates.table.keys[rows]
        of_services = self._densities.services_of(contents)
        same = of_services[:, None] == placement.shown_services
        return Proposed(offsets, contents, same.argmax(axis=1), np.concatenate([each.rate for each in found]))
