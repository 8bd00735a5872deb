"""From users and their candidates to a choice: the stages that need nothing but what is in the process.

Nothing is awaited here, so the catalog's rows, the models and the live versions stay what they are from the first
stage to the last. An explanation looks at the same :class:`Decided` that a selection is made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.batch import Candidates, Scores
from banditmesh.bandits.exploration.choice import Choice
from banditmesh.contracts.events.v1 import events_pb2
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.models import LoadedModel, Models
from services.crs_engine.pipeline import fallback, filters, rules
from services.crs_engine.pipeline.batch import Group, Pool, Users
from services.crs_engine.pipeline.explore import explore
from services.crs_engine.pipeline.features import featurize
from services.crs_engine.pipeline.filters.base import Filter, View
from services.crs_engine.pipeline.score import score
from services.crs_engine.popular_contents import NOTHING_POPULAR, PopularContents

_NO_SHARES = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Filtered:
    """Candidates before and after the filters.

    Attributes:
        view: All of them.
        removed_by: int8[n], position in the list of filters, or ``filters.KEPT``.
        pool: Those that were kept.
    """

    view: View
    removed_by: NDArray[np.int8]
    pool: Pool


@dataclass(frozen=True, eq=False)
class Chosen:
    """What was chosen for the users of a group, and out of what.

    Attributes:
        filtered: Where the candidates come from.
        candidates: Those that can be chosen, with their features; positions in ``choice`` are theirs.
        pool: The same ones.
        choice: [n_users, count] each.
        origin: Of all of them.
        models: By name, what they were scored with; empty for the fallback.
        scores: Of the candidates; None for the fallback.
        shares: float64[len(filtered.pool)], the probability of each for the first position; of the fallback alone,
            else empty.
        popular: Where the fallback chose from.
    """

    filtered: Filtered
    pool: Pool
    candidates: Candidates
    choice: Choice
    origin: events_pb2.Origin.ValueType
    models: Mapping[str, LoadedModel]
    scores: Scores | None
    shares: NDArray[np.float64]
    popular: PopularContents


@dataclass(frozen=True, eq=False)
class Decided:
    """What was decided for a group. ``fallen``: for those users who have no candidate (left); None when there are
    none of them."""

    group: Group
    users: Users
    scored: Chosen
    fallen: Chosen | None


class Decider:
    """Runs the stages."""

    def __init__(self, catalog: Catalog, models: Models, metrics: EngineMetrics, rng: np.random.Generator) -> None:
        self._catalog = catalog
        self._models = models
        self._metrics = metrics
        self._rng = rng

    def decide(self, group: Group, users: Users, pool: Pool, now_s: float) -> Decided:
        """Choose for a group.

        Args:
            group: The requests.
            users: What is known of the users.
            pool: Their hydrated candidates.
            now_s: The present, seconds since the Unix epoch.
        """
        scored = self._score(group, users, pool, now_s)
        needy = (scored.choice.chosen[:, 0] < 0) & (users.muted_until_s == 0)
        popular = self._models.popular(group.placement.name)
        fallen = self._fall_back(group, users, needy, popular, now_s) if needy.any() and len(popular) else None
        return Decided(group, users, scored, fallen)

    def popular_pool(self, placement: CompiledPlacement) -> Pool:
        """The fallback's contents as candidates of one user, to have them read ahead."""
        return fallback.propose(np.ones(1, np.bool_), self._models.popular(placement.name), self._catalog)

    def _score(self, group: Group, users: Users, pool: Pool, now_s: float) -> Chosen:
        stage, placement = self._metrics.stage, group.placement
        with stage("filters"):
            filtered = self._filter(group, users, pool, filters.FILTERS, now_s)
        with stage("features"):
            candidates = featurize(group, users, filtered.pool, self._catalog, now_s)
        models = {each.model: self._models.get(placement.name, each.model) for each in placement.variants}
        with stage("score"):
            scores = score(group, candidates, models)
        self._count_not_finite(group, scores)
        with stage("explore"):
            choice = explore(group, scores, candidates.offsets, self._rng)
        with stage("rules"):
            choice = rules.apply(group, filtered.pool, choice)
        return Chosen(
            filtered,
            filtered.pool,
            candidates,
            choice,
            events_pb2.ORIGIN_POLICY,
            models,
            scores,
            _NO_SHARES,
            NOTHING_POPULAR,
        )

    def _fall_back(
        self, group: Group, users: Users, needy: NDArray[np.bool_], popular: PopularContents, now_s: float
    ) -> Chosen:
        pool = fallback.propose(needy, popular, self._catalog)
        filtered = self._filter(group, users, pool, filters.FALLBACK_FILTERS, now_s)
        shares = fallback.shares(pool, filtered.removed_by == filters.KEPT, popular)
        choice = fallback.draw(shares, filtered.pool.offsets, group.count, self._rng)
        # Only what was chosen needs features, for its token.
        taken = np.zeros(len(filtered.pool), np.bool_)
        taken[choice.chosen[choice.chosen >= 0]] = True
        chosen = filtered.pool.keep(taken)
        index = np.where(choice.chosen >= 0, (np.cumsum(taken) - 1)[choice.chosen], -1) if len(taken) else choice.chosen
        origin = (
            events_pb2.ORIGIN_FALLBACK_NO_CANDIDATES if users.reached else events_pb2.ORIGIN_FALLBACK_STORE_UNAVAILABLE
        )
        candidates = featurize(group, users, chosen, self._catalog, now_s)
        return Chosen(filtered, chosen, candidates, Choice(index, choice.propensity), origin, {}, None, shares, popular)

    def _filter(self, group: Group, users: Users, pool: Pool, wanted: tuple[Filter, ...], now_s: float) -> Filtered:
        view = View(group.placement, users, pool, self._catalog, now_s)
        removed_by = filters.apply(view, wanted)
        kept = removed_by == filters.KEPT
        if not kept.all():
            counts = np.bincount(removed_by[~kept], minlength=len(wanted)).tolist()
            for each, count in zip(wanted, counts, strict=True):
                if count:
                    self._metrics.removed.labels(group.placement.name, each.name).inc(count)
        return Filtered(view, removed_by, pool.keep(kept))

    def _count_not_finite(self, group: Group, scores: Scores) -> None:
        usable = scores.usable()
        if not usable.all():
            names = "+".join(sorted({each.model for each in group.placement.variants}))
            self._metrics.not_finite.labels(group.placement.name, names).inc(int((~usable).sum()))
