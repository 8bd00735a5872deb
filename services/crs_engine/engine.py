"""The engine's way to Redis, and the pipeline behind it: a batch of requests in, what to show to each out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.outages import outages
from banditmesh.runtime.redis import RedisClient
from services.crs_engine.breaker import WORK, Breaker
from services.crs_engine.cache_keeper import CacheKeeper
from services.crs_engine.compiled_placement import CompiledPlacement, Layout
from services.crs_engine.live import LiveFollower
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline import filters
from services.crs_engine.pipeline.batch import Answered, Group, Outcome, Round, SelectionRequest, UserValues
from services.crs_engine.pipeline.hydrate import Hydrator
from services.crs_engine.pipeline.pipeline import Pipeline
from services.crs_engine.rule_cost import RuleCosts
from services.crs_engine.sampled_decisions import Sampler
from services.crs_engine.selection_counts import SelectionCounts
from services.crs_engine.user_memory import UserMemory

WARMED_AT_ONCE: Final = 10
"""Placements whose fallbacks are looked at before requests are let in: some milliseconds of the event loop."""
_ORIGINS = {number: name.removeprefix("ORIGIN_").lower() for name, number in events_pb2.Origin.items()}


@dataclass(frozen=True, eq=False)
class RedisReads:
    """What the pipeline asks of Redis: one round trip for the users, one more for contents that are missing."""

    redis: RedisClient
    breaker: Breaker
    live: LiveFollower
    hydrator: Hydrator
    metrics: EngineMetrics
    memory: UserMemory = field(default_factory=UserMemory)

    async def users(self, groups: Sequence[Group]) -> list[UserValues]:
        """See `pipeline.Reads`. All groups use one set of live versions."""
        live = self.live.current
        layouts = [group.placement.layout(live) for group in groups]
        if not self.breaker.allows():
            self.metrics.redis_refused.inc()
            return self._remembered(groups, layouts)
        try:
            values = await self.redis.read_users(
                [
                    layout.keys(request.user_id)
                    for group, layout in zip(groups, layouts, strict=True)
                    for request in group.requests
                ]
            )
        except Unavailable as error:
            self._failed("users", error)
            return self._remembered(groups, layouts)
        self.breaker.succeeded()
        read, start = [], 0
        for group, layout in zip(groups, layouts, strict=True):
            rows = values[start : start + len(group)]
            self.memory.remember([request.user_id for request in group.requests], rows)
            read.append(UserValues(layout, rows, reached=True))
            start += len(group)
        return read

    async def contents(self, contents: NDArray[np.uint64]) -> None:
        """See `pipeline.Reads`."""
        if not self.breaker.allows():
            return
        try:
            await self.hydrator.fetch(contents)
        except Unavailable as error:
            # The contents that are here serve, though they may be old; the others cannot be shown.
            self._failed("contents", error)

    def _remembered(self, groups: Sequence[Group], layouts: Sequence[Layout]) -> list[UserValues]:
        return [
            UserValues(
                layout,
                [
                    [None] * len(layout.sources) + list(self.memory.recall(request.user_id))
                    for request in group.requests
                ],
                reached=False,
            )
            for group, layout in zip(groups, layouts, strict=True)
        ]

    def _failed(self, read: str, error: Unavailable) -> None:
        self.metrics.redis_errors.labels(read).inc()
        if self.breaker.failed():
            outages.failed(WORK, error)


@dataclass(frozen=True, eq=False)
class Engine:
    """Answers batches, and counts what it has answered."""

    placements: dict[str, CompiledPlacement]
    pipeline: Pipeline
    reads: RedisReads
    metrics: EngineMetrics
    rule_costs: RuleCosts
    keeper: CacheKeeper
    selections: SelectionCounts
    sampler: Sampler | None = None
    """None: no decision is sampled."""

    async def select(self, requests: Sequence[SelectionRequest]) -> list[Outcome]:
        """One outcome for each request, in their order. Never fails because Redis is away: that is what the fallback is
        for."""
        self.metrics.batch_size.observe(len(requests))
        outcomes: list[Outcome] = [Outcome(())] * len(requests)
        for answered in await self.answer(group_requests(self.placements, requests)):
            for position, outcome in zip(answered.slate.group.positions, answered.outcomes, strict=True):
                outcomes[position] = outcome
            self._count(answered)
            self.keeper.keep(answered)
            self.rule_costs.look(answered.slate, self.pipeline.rules[answered.slate.group.placement.name])
            if self.sampler is not None:
                self.sampler.offer(answered)
        return outcomes

    async def answer(self, groups: Sequence[Group]) -> list[Answered]:
        """How each group is answered; nothing is counted, for an explanation shows nothing to anybody."""
        return await self.pipeline.run(groups, self.reads)

    async def keep_fallbacks_warm(self) -> NDArray[np.uint64]:
        """Read the contents of the fallbacks into the catalog: when Redis is away it is too late for that. Returns
        their keys, uint64[n], each once."""
        found = [np.zeros(0, np.uint64)]
        placements = list(self.placements.values())
        for start in range(0, len(placements), WARMED_AT_ONCE):
            some = placements[start : start + WARMED_AT_ONCE]
            pools = [pool for each in some for pool in self.pipeline.fallback_pools(each)]
            await self.pipeline.hydrate(pools, self.reads)
            found += [pool.contents for pool in pools]
            await asyncio.sleep(0)
        return np.unique(np.concatenate(found))

    def _count(self, answered: Answered) -> None:
        placement = answered.slate.group.placement
        for each in answered.slate.rounds:
            self._count_round(placement, answered.slate.group, each)
        group = answered.slate.group
        empty = np.array([outcome.empty is not None for outcome in answered.outcomes], np.bool_)
        self.selections.add(placement, [request.user_id for request in group.requests], group.variants, empty)
        for outcome in answered.outcomes:
            if outcome.empty is not None:
                self.metrics.no_content.labels(placement.name, pb.NoContentReason.Name(outcome.empty.reason)).inc()

    def _count_round(self, placement: CompiledPlacement, group: Group, drawn: Round) -> None:
        if len(drawn.pool) < len(drawn.removed_by):
            removed_by = drawn.removed_by[drawn.removed_by != filters.KEPT]
            used = self.pipeline.filters[placement.name]
            for at, count in enumerate(np.bincount(removed_by).tolist()):
                if count:
                    self.metrics.removed.labels(placement.name, used[at].name).inc(count)
        usable = drawn.scores.usable()
        if not usable.all():
            names = "+".join(sorted(drawn.models)) or "fallback"
            self.metrics.not_finite.labels(placement.name, names).inc(int((~usable).sum()))
        # A list counts for the one who fills its first position.
        first = (drawn.choice.chosen >= 0).any(axis=1) & (drawn.first == 0)
        shown = np.bincount(group.variants[first], minlength=len(placement.variants)).tolist()
        for variant, count in zip(placement.variants, shown, strict=True):
            if count:
                self.metrics.decided(placement.name, _ORIGINS[drawn.origin], variant.name, count)


def group_requests(placements: dict[str, CompiledPlacement], requests: Sequence[SelectionRequest]) -> list[Group]:
    """Sort requests into groups: by placement and count, and within a group by variant."""
    together: dict[tuple[str, int], list[int]] = {}
    for position, request in enumerate(requests):
        together.setdefault((request.placement, request.count), []).append(position)
    groups = []
    for (name, count), positions in together.items():
        placement = placements[name]
        variants = placement.assignment.of([requests[position].user_id for position in positions])
        if len(placement.variants) > 1:
            order = np.argsort(variants, kind="stable")
            variants = variants[order]
            positions = [positions[at] for at in order.tolist()]
        groups.append(Group(placement, count, [requests[position] for position in positions], positions, variants))
    return groups
