"""Models that know nothing, for tests of what stands around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from banditmesh.bandits import hashing
from banditmesh.bandits.popularity import Popularity
from banditmesh.bandits.registry import build
from services.crs_engine.models import FALLBACK, LoadedModel
from services.crs_engine.popular_contents import PopularContents
from tests.support.engine_batch import Bench, FixedModels


def models(bench: Bench, popular: Sequence[int] = ()) -> FixedModels:
    """Untrained models of the bench's variants; these comics are popular."""
    comics = np.full(len(popular), hashing.service_key("comics"), np.uint64)
    loaded = {each.model: LoadedModel(build("linucb", {"arm": "logic"})) for each in bench.placement.variants}
    return FixedModels(
        {**loaded, FALLBACK: LoadedModel(Popularity())},
        PopularContents(np.array(popular, np.uint64), comics, np.ones(len(comics), np.float32)),
    )
