"""The pipeline on one page: sources → hydrate → filters → features → score → draw → fill → respond.

What flows from stage to stage is in ``batch.py``; each stage is a module of its name. A selection and an explanation
run this same page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.token import KeyRing
from banditmesh.runtime.user_records import UserRecords
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.densities import Densities
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.models import LoadedModel, Models
from services.crs_engine.pipeline import filters, ranked, rules, sources
from services.crs_engine.pipeline.batch import Answered, Group, Pool, Round, Slate, Users, UserValues, View
from services.crs_engine.pipeline.draw import draw
from services.crs_engine.pipeline.fill import fill
from services.crs_engine.pipeline.filters.base import Filter
from services.crs_engine.pipeline.hydrate import hydrate, missing
from services.crs_engine.pipeline.recommenders import ByCache, ByFallback, ByVariants, Recommender
from services.crs_engine.pipeline.respond import respond
from services.crs_engine.pipeline.retrievers import Retrievers
from services.crs_engine.pipeline.rules.base import Rule
from services.crs_engine.pipeline.user_vectors import user_vectors


class Reads(Protocol):
    """What the pipeline asks of Redis. Never raises because Redis is away."""

    async def users(self, groups: Sequence[Group]) -> list[UserValues]:
        """The values of the groups' users, all in one round trip."""
        ...

    async def contents(self, contents: NDArray[np.uint64]) -> None:
        """Read these contents into the catalog, in one round trip."""
        ...


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The stages, and what they need. Holds no state of its own."""

    catalog: Catalog
    models: Models
    densities: Densities
    retrievers: Retrievers
    filters: Mapping[str, Sequence[Filter]]
    """By placement, as are the rules."""
    rules: Mapping[str, Mapping[str, Rule]]
    ring: KeyRing
    clock: Clock
    metrics: EngineMetrics
    rng: np.random.Generator

    async def run(self, groups: Sequence[Group], reads: Reads) -> list[Answered]:
        """Answer each group. All of them use one set of live versions."""
        stage = self.metrics.stage
        with stage("sources"):
            values = await reads.users(groups)
            now_s = self.clock.now_s()
            known = [
                sources.read(group, each, now_s, self._vectors(group.placement, now_s))
                for group, each in zip(groups, values, strict=True)
            ]
            cached = [
                ranked.read(group, users, each, self._models_of(group.placement), self.catalog, now_s)
                for group, users, each in zip(groups, known, values, strict=True)
            ]
            mapped = [
                sources.propose(group, users, each, self.retrievers, now_s, None if found is None else found.hits)
                for group, users, each, found in zip(groups, known, values, cached, strict=True)
            ]
        with stage("hydrate"):
            fallbacks = self._likely_fallbacks(groups, known, mapped)
            again = [found.pool for found in cached if found is not None]
            mapped, again = _cut(await self.hydrate([*mapped, *again, *fallbacks], reads), len(mapped), len(again))
        # Nothing is awaited from here on, so the catalog's rows, the models and the live versions stay what they are.
        now_s = self.clock.now_s()
        answered = []
        hydrated = iter(again)
        for group, users, pool, found in zip(groups, known, mapped, cached, strict=True):
            before = None if found is None else ByCache(group, found, next(hydrated), self.models)
            slate = self._decide(group, users, pool, now_s, before if found is not None and found.hits.any() else None)
            with stage("respond"):
                outcomes = respond(slate, self.catalog, self.ring, now_s)
            answered.append(Answered(slate, outcomes, found))
        return answered

    def _vectors(
        self, placement: CompiledPlacement, now_s: float
    ) -> Callable[[UserRecords], NDArray[np.float32] | None]:
        return lambda records: user_vectors(placement, records, self.catalog, self.densities, now_s)

    def _models_of(self, placement: CompiledPlacement) -> dict[str, LoadedModel]:
        return {each.model: self.models.get(placement.name, each.model) for each in placement.variants}

    def _decide(self, group: Group, users: Users, mapped: Pool, now_s: float, cached: ByCache | None = None) -> Slate:
        """Fill the group's lists: by the variants' policies first, of users who have it by what is cached of those,
        then by one fallback after the other."""
        stage, slate = self.metrics.stage, Slate.empty(group, users)
        used = self.filters[group.placement.name]
        for recommender in self._recommenders(group, mapped, cached):
            if recommender.only_fills and not slate.open.any():
                break
            pool = recommender.propose(slate)
            with stage("filters"):
                view = View(group.placement, users, pool, self.catalog, now_s)
                removed_by = filters.apply(view, used)
                pool = pool.keep(removed_by == filters.KEPT)
            with stage("features"):
                candidates = recommender.featurize(slate, pool, self.catalog, now_s)
            with stage("score"):
                scores = recommender.score(candidates)
            with stage("draw"):
                constraints = rules.constraints(view, pool, slate, scores, self.rules[group.placement.name])
                choice = draw(recommender.explores, scores, pool, slate, constraints.values(), self.rng)
            with stage("fill"):
                slate = fill(
                    slate,
                    Round(
                        recommender.origin(users),
                        recommender.models,
                        view,
                        removed_by,
                        pool,
                        candidates,
                        scores,
                        recommender.explores,
                        constraints,
                        choice,
                        slate.filled,
                        recommender.featured,
                        recommender.versions,
                    ),
                )
        return slate

    def _recommenders(self, group: Group, mapped: Pool, cached: ByCache | None) -> Iterable[Recommender]:
        yield ByVariants(group, mapped, self.models)
        if cached is not None:
            yield cached
        for fallback in group.placement.fallbacks:
            yield ByFallback(group, fallback, self.retrievers.everybodys[fallback.retriever], self.catalog)

    async def hydrate(self, pools: Sequence[Pool], reads: Reads) -> list[Pool]:
        """The pools with the rows of their contents; what the catalog lacks is read."""
        hydrated = [hydrate(pool, self.catalog) for pool in pools]
        wanted = missing(hydrated, self.catalog, self.clock.monotonic_s())
        if not len(wanted):
            return hydrated
        await reads.contents(wanted)
        # Rows may have moved meanwhile, by this reading or another batch's.
        return [hydrate(pool, self.catalog) for pool in pools]

    def _likely_fallbacks(
        self, groups: Sequence[Group], known: Sequence[Users], mapped: Sequence[Pool]
    ) -> Iterable[Pool]:
        """What the fallbacks will propose, where it is clear already that they will be asked, and Redis answers."""
        for group, users, pool in zip(groups, known, mapped, strict=True):
            if group.placement.fallbacks and users.reached and pool.counts.min() < group.count:
                yield from self.fallback_pools(group.placement)

    def fallback_pools(self, placement: CompiledPlacement) -> Iterable[Pool]:
        """The contents of each fallback as candidates of one user, to have them read ahead."""
        for fallback in placement.fallbacks:
            retrieved = self.retrievers.everybodys[fallback.retriever].retrieve(placement)
            yield sources.retrieved_pool(retrieved, fallback.first_source, placement, np.ones(1, np.bool_))


def _cut(pools: Sequence[Pool], first: int, second: int) -> tuple[list[Pool], list[Pool]]:
    """The first pools, and those that follow."""
    return list(pools[:first]), list(pools[first : first + second])
