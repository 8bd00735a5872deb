"""The contents of a placement that earn most, by the last snapshot of a ``popularity``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from banditmesh.bandits.batch import Candidates, Scores
from banditmesh.runtime.retrieval_options import Popular
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.models import FALLBACK, Models
from services.crs_engine.pipeline.retrievers.base import Asked, Proposed, Retrieved


class Popularity:
    """Needs no Redis: the snapshot has the keys. What has gone since keeps its counters for a while; it comes last."""

    name: ClassVar[str] = "popularity"

    def __init__(self, models: Models, catalog: Catalog) -> None:
        self._models = models
        self._catalog = catalog

    def retrieve(self, placement: CompiledPlacement) -> Retrieved:
        """See `Retriever.retrieve`."""
        return self._counted_by(FALLBACK, placement)

    def propose(self, asked: Asked) -> Proposed:
        """See `Retriever.propose`: the same to everybody. The score is the mean reward."""
        options = asked.retrieval.options
        model = options.model_name if isinstance(options, Popular) else FALLBACK
        return self._counted_by(model, asked.group.placement, asked.now_s).to(asked)

    def _counted_by(self, model: str, placement: CompiledPlacement, now_s: float = 0.0) -> Retrieved:
        popular = self._models.popular(placement.name, model)
        order = np.argsort(self._catalog.are_gone(self._catalog.find(popular.keys), now_s), kind="stable")
        return Retrieved.of(popular.keys[order], popular.services[order], popular.means[order], placement)

    def score(self, placement: CompiledPlacement, candidates: Candidates) -> Scores:
        """See `Retriever.score`: the policy's own."""
        return self._models.get(placement.name, FALLBACK).policy.score(candidates)
