"""Who fills a list: the variants' policies out of the placement's sources, then the fallbacks, one after the other.

All of them take the same way through the stages, so filters, rules, propensities and tokens hold for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import segments
from banditmesh.bandits.batch import Candidates, Scores, SparseRows
from banditmesh.bandits.exploration.choice import Explores
from banditmesh.contracts.events.v1 import events_pb2
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import Fallback
from services.crs_engine.models import LoadedModel, Models
from services.crs_engine.pipeline.batch import Group, Pool, Ranked, Slate, Users, user_salts
from services.crs_engine.pipeline.draw import EachByItsVariant
from services.crs_engine.pipeline.features import featurize
from services.crs_engine.pipeline.hydrate import hydrate
from services.crs_engine.pipeline.retrievers.base import Everybodys
from services.crs_engine.pipeline.score import score
from services.crs_engine.pipeline.sources import retrieved_pool


class Recommender(Protocol):
    """Proposes candidates for the open positions of lists, and says what is thought of them."""

    only_fills: ClassVar[bool]
    """Whether it is asked only when there are open positions."""
    featured: ClassVar[bool]
    """See `Round.featured`."""
    versions: NDArray[np.int64] | None
    """See `Round.versions`."""

    @property
    def explores(self) -> Explores:
        """What gives the candidates their probabilities."""
        ...

    @property
    def models(self) -> Mapping[str, LoadedModel]:
        """The variants' models that score, by name."""
        ...

    def propose(self, slate: Slate) -> Pool:
        """Hydrated candidates for the lists' open positions, none that is on the list already."""
        ...

    def featurize(self, slate: Slate, pool: Pool, catalog: Catalog, now_s: float) -> Candidates:
        """The candidates of a pool with the features that :meth:`score` needs."""
        ...

    def score(self, candidates: Candidates) -> Scores:
        """``float32[n_candidates]`` each."""
        ...

    def origin(self, users: Users) -> events_pb2.Origin.ValueType:
        """Where the contents that it fills in come from."""
        ...


class ByVariants:
    """The candidates of the placement's sources, by the policy and the exploration of each user's variant."""

    only_fills: ClassVar[bool] = False
    featured: ClassVar[bool] = True
    versions: NDArray[np.int64] | None = None

    def __init__(self, group: Group, mapped: Pool, models: Models) -> None:
        self._group = group
        self._mapped = mapped
        self.models = {each: models.get(group.placement.name, each) for each in group.placement.models}
        self.explores = EachByItsVariant(group)

    def propose(self, slate: Slate) -> Pool:
        """See `Recommender.propose`."""
        return self._mapped

    def featurize(self, slate: Slate, pool: Pool, catalog: Catalog, now_s: float) -> Candidates:
        """See `Recommender.featurize`: all features."""
        return featurize(self._group, slate.users, pool, catalog, now_s)

    def score(self, candidates: Candidates) -> Scores:
        """See `Recommender.score`."""
        return score(self._group, candidates, self.models)

    def origin(self, users: Users) -> events_pb2.Origin.ValueType:
        """See `Recommender.origin`."""
        return events_pb2.ORIGIN_POLICY


class ByCache:
    """What the users' candidates were scored a short while ago, by the exploration of each user's variant.

    Its turn is after the variants', which have no candidates of these users.
    """

    only_fills: ClassVar[bool] = True
    featured: ClassVar[bool] = False

    def __init__(self, group: Group, ranked: Ranked, pool: Pool, models: Models) -> None:
        """``pool``: that of ``ranked``, hydrated."""
        self._ranked = ranked
        self._pool = pool
        self._salts = user_salts(len(group))
        self.versions: NDArray[np.int64] | None = ranked.versions
        self.models = {each.model: models.get(group.placement.name, each.model) for each in group.placement.variants}
        self.explores = EachByItsVariant(group)

    def propose(self, slate: Slate) -> Pool:
        """See `Recommender.propose`: all of them, but where a mute has emptied the slot."""
        return self._pool.keep((slate.open > 0)[self._pool.owners])

    def featurize(self, slate: Slate, pool: Pool, catalog: Catalog, now_s: float) -> Candidates:
        """See `Recommender.featurize`: the scores are there already."""
        return _without_features(pool)

    def score(self, candidates: Candidates) -> Scores:
        """See `Recommender.score`."""
        salted = candidates.contents ^ self._salts[segments.owners(candidates.offsets)]
        kept = np.isin(self._pool.contents ^ self._salts[self._pool.owners], salted)
        return Scores(self._ranked.scores.mean[kept], self._ranked.scores.deviation[kept])

    def origin(self, users: Users) -> events_pb2.Origin.ValueType:
        """See `Recommender.origin`."""
        return events_pb2.ORIGIN_POLICY


class ByFallback:
    """What a retriever proposes to everybody, in the order that it has; the better its rank, the likelier."""

    only_fills: ClassVar[bool] = True
    featured: ClassVar[bool] = False
    versions: NDArray[np.int64] | None = None

    def __init__(self, group: Group, fallback: Fallback, retriever: Everybodys, catalog: Catalog) -> None:
        self._placement = group.placement
        self._fallback = fallback
        self._retriever = retriever
        self._catalog = catalog
        self.explores = fallback.exploration
        self.models: Mapping[str, LoadedModel] = {}

    def propose(self, slate: Slate) -> Pool:
        """See `Recommender.propose`."""
        retrieved = self._retriever.retrieve(self._placement)
        pool = retrieved_pool(retrieved, self._fallback.first_source, self._placement, slate.open > 0)
        pool = hydrate(pool, self._catalog)
        if not slate.filled.any():
            return pool
        again = (pool.contents[:, None] == slate.contents[pool.owners]).any(axis=1)
        return pool.keep(~again)

    def featurize(self, slate: Slate, pool: Pool, catalog: Catalog, now_s: float) -> Candidates:
        """See `Recommender.featurize`: no retriever looks at features; what is shown gets them for its token."""
        return _without_features(pool)

    def score(self, candidates: Candidates) -> Scores:
        """See `Recommender.score`."""
        return self._retriever.score(self._placement, candidates)

    def origin(self, users: Users) -> events_pb2.Origin.ValueType:
        """See `Recommender.origin`."""
        if users.reached:
            return events_pb2.ORIGIN_FALLBACK_NO_CANDIDATES
        return events_pb2.ORIGIN_FALLBACK_STORE_UNAVAILABLE


def _without_features(pool: Pool) -> Candidates:
    """The candidates for somebody who needs no features of them."""
    nothing = np.zeros(len(pool), np.uint64)
    contexts, own = SparseRows.empty(len(pool.offsets) - 1), SparseRows.empty(len(pool))
    return Candidates(pool.offsets, pool.contents, nothing, pool.services, contexts, own)
