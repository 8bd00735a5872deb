"""Refreshes of contents: on a service's schedule by one importer of all, and on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from banditmesh.lengths import MAX_CONTENT_ID_BYTES, MAX_CONTENT_IDS
from banditmesh.runtime import keys
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument, MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.service_options import Service
from services.importer.metrics import ImporterMetrics
from services.importer.provider_calls import ProviderCalls, RejectedContent
from services.importer.redis_contents import RedisContents

log = get_logger(__name__)

LOOK_S = 1.0
"""How often to see whether a refresh is due."""
SHOWN_REJECTIONS = 100
A_BATCH = 20
"""So many contents say of a call what share of them is missing; of fewer, chance would."""
RETRY_AFTER_S = 30.0
"""How soon a refresh that failed is tried again, if not due sooner."""

_TAKE = """
if redis.call('PTTL', KEYS[1]) >= 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_IF_OURS = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did.

    Attributes:
        requested: Contents that were asked for.
        changed: Contents that were new or had changed.
        missing: Contents that were dropped.
        kept: Contents that the provider left out and that stay, since too many were missing at once.
        rejected: How many contents were ignored.
        rejections: The first of them.
    """

    requested: int = 0
    changed: int = 0
    missing: int = 0
    kept: int = 0
    rejected: int = 0
    rejections: tuple[RejectedContent, ...] = ()

    def __add__(self, other: Refreshed) -> Refreshed:
        return Refreshed(
            self.requested + other.requested,
            self.changed + other.changed,
            self.missing + other.missing,
            self.kept + other.kept,
            self.rejected + other.rejected,
            (self.rejections + other.rejections)[:SHOWN_REJECTIONS],
        )


class Refresher:
    """Asks the Data Providers again for what is known already."""

    def __init__(
        self,
        contents: RedisContents,
        providers: ProviderCalls,
        metrics: ImporterMetrics,
        services: Mapping[str, Service],
    ) -> None:
        self._contents = contents
        self._providers = providers
        self._metrics = metrics
        self._services = services

    async def refresh(self, service: str, content_ids: Sequence[str] = (), *, drop_missing: bool = False) -> Refreshed:
        """Ask for these contents, or for all known ones; those that do not exist any more are dropped.

        When all are asked for and more than ``refresh_max_missing`` of them do not come back, of all or of those that
        one call asked for, the provider is taken to be broken, and what is known stays (of all, or of that call),
        unless ``drop_missing`` says that it is right. An answer that is not valid changes nothing: the content stays as
        it was.

        Raises:
            FailedPrecondition: The service has no provider, or that answered with an error.
            Unavailable: The provider or Redis did not answer; what was refreshed by then stays so.
        """
        if not self._providers.has_provider(service):
            raise FailedPrecondition(
                f"the service {service!r} has no Data Provider",
                field="service",
                value=service,
                hint="set services.<name>.provider in mesh.yaml",
            )
        await self._contents.announce_leftovers(service)
        if content_ids:
            done, missing = await self._update(service, content_ids)
            return done + await self._drop(service, missing)
        done = Refreshed()
        missing = []
        doubted: list[str] = []
        most = 1.0 if drop_missing else self._services[service].refresh_max_missing
        async for known in self._contents.known(service, MAX_CONTENT_IDS):
            part, gone = await self._update(service, known)
            done += part
            # An empty answer among good ones: the calls are spread over all contents, so it is no batch of theirs.
            (doubted if len(known) >= A_BATCH and len(gone) > most * len(known) else missing).extend(gone)
        if len(missing) + len(doubted) > most * done.requested:
            return done + self._keep_all(service, done.requested, [*missing, *doubted])
        if doubted:
            done += self._keep_all(service, done.requested, doubted)
        return done + await self._drop(service, missing)

    def _keep_all(self, service: str, requested: int, missing: Sequence[str]) -> Refreshed:
        self._metrics.contents.labels(service=service, outcome="kept").inc(len(missing))
        log.warning(
            "data provider leaves out more than refresh_max_missing: these contents stay",
            of=service,
            requested=requested,
            missing=len(missing),
            first=missing[0],
        )
        return Refreshed(kept=len(missing))

    async def _update(self, service: str, content_ids: Sequence[str]) -> tuple[Refreshed, list[str]]:
        """Store what the provider answers, drop what has expired by itself, and return the ids that are missing."""
        answer = await self._providers.get_contents(service, content_ids)
        alive = [content for content in answer.contents if not self._contents.has_expired(content)]
        expired = [content.content_id for content in answer.contents if self._contents.has_expired(content)]
        changed = await self._contents.save(service, alive)
        for outcome, count in (("changed", changed), ("same", len(alive) - changed)):
            self._metrics.contents.labels(service=service, outcome=outcome).inc(count)
        done = Refreshed(
            len(content_ids),
            changed,
            rejected=len(answer.rejected),
            rejections=tuple(answer.rejected[:SHOWN_REJECTIONS]),
        )
        return done + await self._drop(service, expired), answer.missing

    async def _drop(self, service: str, content_ids: Sequence[str]) -> Refreshed:
        await self._contents.drop(service, content_ids)
        self._metrics.contents.labels(service=service, outcome="missing").inc(len(content_ids))
        return Refreshed(missing=len(content_ids))


class RefreshSchedule:
    """Refreshes each service's contents every ``refresh_every``.

    A key that lives for ``refresh_every`` marks that it was done; another, with a short life and an owner who renews
    it, that somebody is at it. Killed in the middle, the second one runs out and another importer starts over.
    """

    def __init__(
        self,
        redis: RedisClient,
        refresher: Refresher,
        services: Mapping[str, Service],
        metrics: ImporterMetrics,
        clock: Clock,
        *,
        owner: str,
        lease_s: float,
    ) -> None:
        self._redis = redis
        self._refresher = refresher
        self._every_s = {
            name: service.refresh_every
            for name, service in services.items()
            if service.refresh_every and service.provider
        }
        self._metrics = metrics
        self._clock = clock
        self._owner = owner
        self._lease_ms = int(lease_s * 1000)

    async def run(self) -> None:
        """Work until cancelled; a service whose provider hangs does not hold the others."""
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait(), name="nothing is refreshed")  # by schedule, it may be
            for service, every_s in self._every_s.items():
                group.create_task(self._keep_fresh(service, every_s), name=f"refresh of {service}")
            await asyncio.Event().wait()  # also when no service is to be refreshed

    async def _keep_fresh(self, service: str, every_s: float) -> None:
        while True:
            try:
                await self._refresh_if_due(service, every_s)
                outages.well(_schedule(service))
            except MeshError as error:
                outages.failed(_schedule(service), error)
            await self._clock.sleep(LOOK_S)

    async def _refresh_if_due(self, service: str, every_s: float) -> None:
        lease = keys.refresh_lease(service)
        async with self._redis.guarded(keys.refreshed(service), lease):
            # What stays for ever is no mark and no lease: nothing would be refreshed any more.
            if await self._redis.client.pttl(keys.refreshed(service)) >= 0:
                return
            if not await self._redis.client.eval(_TAKE, 1, lease, self._owner, self._lease_ms):
                return
        keeping = asyncio.create_task(self._keep(lease))
        try:
            done = await self._refresher.refresh(service)
        except MeshError as error:
            self._metrics.refreshes.labels(service=service, outcome="failed").inc()
            outages.failed(_refresh(service), error)
            next_s = min(every_s, RETRY_AFTER_S)
        else:
            outages.well(_refresh(service))
            self._metrics.refreshes.labels(service=service, outcome="held_back" if done.kept else "succeeded").inc()
            log.info(
                "contents refreshed",
                of=service,
                requested=done.requested,
                changed=done.changed,
                missing=done.missing,
                kept=done.kept,
            )
            next_s = every_s
        finally:
            keeping.cancel()
        async with self._redis.guarded():
            await self._redis.client.set(keys.refreshed(service), self._owner, px=int(next_s * 1000))
        async with self._redis.guarded(lease):
            await self._redis.client.eval(_IF_OURS, 1, lease, self._owner, 0)

    async def _keep(self, lease: str) -> None:
        """Renew the lease. Losing it costs a refresh done twice, no more, so nobody needs to be stopped."""
        while True:
            await self._clock.sleep(self._lease_ms / 3000)
            try:
                async with self._redis.guarded(lease):
                    await self._redis.client.eval(_IF_OURS, 1, lease, self._owner, self._lease_ms)
                outages.well(lease)
            except MeshError as error:
                outages.failed(lease, error)


def _schedule(service: str) -> str:
    return f"schedule of {service}'s refreshes"


def _refresh(service: str) -> str:
    return f"refresh of {service}"


def check_content_ids(content_ids: Sequence[str]) -> list[str]:
    """Return the ids that a caller wants refreshed, each once. Raises InvalidArgument."""
    if len(content_ids) > MAX_CONTENT_IDS:
        raise InvalidArgument(
            f"at most {MAX_CONTENT_IDS} content ids in a call", field="content_ids", value=len(content_ids)
        )
    for i, content_id in enumerate(content_ids):
        if not 1 <= len(content_id.encode()) <= MAX_CONTENT_ID_BYTES:
            raise InvalidArgument(
                f"a content id has 1 to {MAX_CONTENT_ID_BYTES} bytes", field=f"content_ids[{i}]", value=content_id
            )
    return list(dict.fromkeys(content_ids))
