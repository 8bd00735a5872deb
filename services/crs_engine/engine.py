"""The pipeline from end to end: a batch of requests in, what to show to each out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.redis import RedisStore
from banditmesh.runtime.token import KeyRing
from services.crs_engine.breaker import Breaker
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.decide import Chosen, Decided, Decider
from services.crs_engine.live import LiveFollower, LiveVersions
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline import sources
from services.crs_engine.pipeline.batch import Group, Pool, SelectionRequest, Users
from services.crs_engine.pipeline.hydrate import Hydrator
from services.crs_engine.pipeline.respond import no_content, respond

log = get_logger(__name__)

_ORIGINS = {number: name.removeprefix("ORIGIN_").lower() for name, number in events_pb2.Origin.items()}


class Outcome(NamedTuple):
    """What to show for a request, the first position first; ``empty`` says why it is nothing.

    Attributes:
        contents: Serialised ``SelectedContent`` messages.
    """

    contents: Sequence[bytes]
    empty: pb.NoContent | None = None


@dataclass(frozen=True, eq=False)
class Engine:
    """Answers batches. Holds no state of its own; all of it is in the parts."""

    placements: dict[str, CompiledPlacement]
    store: RedisStore
    breaker: Breaker
    live: LiveFollower
    catalog: Catalog
    hydrator: Hydrator
    decider: Decider
    ring: KeyRing
    clock: Clock
    metrics: EngineMetrics

    async def select(self, requests: Sequence[SelectionRequest]) -> list[Outcome]:
        """One outcome for each request, in their order. Never fails because Redis is away: that is what the fallback is
        for."""
        self.metrics.batch_size.observe(len(requests))
        outcomes: list[Outcome] = [Outcome(())] * len(requests)
        for decided in await self.decide(group_requests(self.placements, requests)):
            for position, outcome in zip(decided.group.positions, self._answer(decided), strict=True):
                outcomes[position] = outcome
        return outcomes

    async def decide(self, groups: Sequence[Group]) -> list[Decided]:
        """What is decided for each group. All of them use one set of live versions, and one moment."""
        read = await self._read(groups, self.live.current)
        with self.metrics.stage("hydrate"):
            pools = await self._hydrate([pool for _, pool in read])
        now_s = self.clock.now_s()
        return [
            self.decider.decide(group, users, pool, now_s)
            for group, (users, _), pool in zip(groups, read, pools, strict=True)
        ]

    async def _read(self, groups: Sequence[Group], live: LiveVersions) -> list[tuple[Users, Pool]]:
        """What Redis says of all users, in one round trip; nothing at all when it is away."""
        if not self.breaker.allows():
            self.metrics.redis_refused.inc()
            return [sources.unreached(group) for group in groups]
        layouts = [group.placement.layout(live) for group in groups]
        with self.metrics.stage("sources"):
            try:
                values = await self.store.read_users(
                    [
                        layout.keys(request.user_id)
                        for group, layout in zip(groups, layouts, strict=True)
                        for request in group.requests
                    ]
                )
            except Unavailable as error:
                self._redis_failed("users", error)
                return [sources.unreached(group) for group in groups]
            self.breaker.succeeded()
            read, start, now_s = [], 0, self.clock.now_s()
            for group, layout in zip(groups, layouts, strict=True):
                read.append(sources.unpack(group, layout, values[start : start + len(group)], now_s))
                start += len(group)
        return read

    async def _hydrate(self, pools: Sequence[Pool]) -> list[Pool]:
        hydrated = [self.hydrator.hydrate(pool) for pool in pools]
        missing = self.hydrator.missing(hydrated)
        if not len(missing):
            return hydrated
        try:
            await self.hydrator.fetch(missing)
        except Unavailable as error:
            # The contents that are here serve, though they may be old; the others cannot be shown.
            self._redis_failed("contents", error)
        # Rows may have moved meanwhile, by this fetch or another batch's.
        return [self.hydrator.hydrate(pool) for pool in pools]

    async def keep_popular_warm(self) -> None:
        """Read the fallback's contents into the catalog: when Redis is away it is too late for that."""
        pools = [self.decider.popular_pool(placement) for placement in self.placements.values()]
        await self._hydrate(pools)

    def _answer(self, decided: Decided) -> list[Outcome]:
        group, now_s = decided.group, self.clock.now_s()
        with self.metrics.stage("respond"):
            contents = respond(group, decided.scored, self.catalog, self.ring, now_s)
            if decided.fallen is not None:
                for own, fallen in zip(
                    contents, respond(group, decided.fallen, self.catalog, self.ring, now_s), strict=True
                ):
                    own.extend(fallen)
            outcomes = [
                Outcome(shown) if shown else Outcome(shown, no_content(decided, user))
                for user, shown in enumerate(contents)
            ]
        self._count(decided, outcomes)
        return outcomes

    def _count(self, decided: Decided, outcomes: Sequence[Outcome]) -> None:
        placement = decided.group.placement
        for chosen in (decided.scored, decided.fallen):
            if chosen is not None:
                self._count_origin(decided.group, chosen)
        for outcome in outcomes:
            if outcome.empty is not None:
                self.metrics.no_content.labels(placement.name, pb.NoContentReason.Name(outcome.empty.reason)).inc()

    def _count_origin(self, group: Group, chosen: Chosen) -> None:
        shown = np.bincount(
            group.variants[chosen.choice.chosen[:, 0] >= 0], minlength=len(group.placement.variants)
        ).tolist()
        origin = _ORIGINS[chosen.origin]
        for variant, count in zip(group.placement.variants, shown, strict=True):
            if count:
                self.metrics.decided(group.placement.name, origin, variant.name, count)

    def _redis_failed(self, read: str, error: Unavailable) -> None:
        self.metrics.redis_errors.labels(read).inc()
        if self.breaker.failed():
            log.warning("Redis is away; the fallback answers", error=str(error))


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
