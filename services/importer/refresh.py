"""Refreshes of contents: on a service's schedule by one importer of all, and on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from banditmesh.runtime import keys
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument, MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.mesh import Service
from banditmesh.runtime.redis import RedisStore
from services.importer.catalog import Catalog
from services.importer.metrics import ImporterMetrics
from services.importer.provider_calls import MAX_IDS, ProviderCalls
from services.importer.rows import MAX_ID_BYTES

log = get_logger(__name__)

LOOK_S = 1.0
"""How often to see whether a refresh is due."""
RETRY_AFTER_S = 30.0
"""How soon a refresh that failed is tried again, if not due sooner."""

_IF_OURS = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did, in contents."""

    requested: int = 0
    changed: int = 0
    missing: int = 0
    rejected: int = 0

    def __add__(self, other: Refreshed) -> Refreshed:
        return Refreshed(
            self.requested + other.requested,
            self.changed + other.changed,
            self.missing + other.missing,
            self.rejected + other.rejected,
        )


class Refresher:
    """Asks the Data Providers again for what is known already."""

    def __init__(self, catalog: Catalog, providers: ProviderCalls, metrics: ImporterMetrics) -> None:
        self._catalog = catalog
        self._providers = providers
        self._metrics = metrics

    async def refresh(self, service: str, content_ids: Sequence[str] = ()) -> Refreshed:
        """Ask for these contents, or for all known ones; those that do not exist any more are dropped.

        An answer that is not valid changes nothing: the content stays as it was.

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
        await self._catalog.announce_leftovers(service)
        done = Refreshed()
        if content_ids:
            return await self._refresh(service, content_ids)
        async for known in self._catalog.known(service, MAX_IDS):
            done += await self._refresh(service, known)
        return done

    async def _refresh(self, service: str, content_ids: Sequence[str]) -> Refreshed:
        answer = await self._providers.get_contents(service, content_ids)
        alive = [content for content in answer.contents if not self._catalog.has_expired(content)]
        expired = [content.content_id for content in answer.contents if self._catalog.has_expired(content)]
        changed = await self._catalog.save(service, alive)
        gone = answer.missing + expired
        await self._catalog.drop(service, gone)
        for outcome, count in (("changed", changed), ("same", len(alive) - changed), ("missing", len(gone))):
            self._metrics.contents.labels(service=service, outcome=outcome).inc(count)
        return Refreshed(len(content_ids), changed, len(gone), answer.rejected)


class RefreshSchedule:
    """Refreshes each service's contents every ``refresh_every``.

    A key that lives for ``refresh_every`` marks that it was done; another, with a short life and an owner who renews
    it, that somebody is at it. Killed in the middle, the second one runs out and another importer starts over.
    """

    def __init__(
        self,
        redis: RedisStore,
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
        """Work until cancelled. Raises Unavailable when Redis is away; whoever supervises calls again."""
        while True:
            async with asyncio.TaskGroup() as group:
                for service, every_s in self._every_s.items():
                    group.create_task(self._refresh_if_due(service, every_s))
            await self._clock.sleep(LOOK_S)

    async def _refresh_if_due(self, service: str, every_s: float) -> None:
        lease = keys.refresh_lease(service)
        async with self._redis.guarded():
            if await self._redis.client.exists(keys.refreshed(service)):
                return
            if not await self._redis.client.set(lease, self._owner, nx=True, px=self._lease_ms):
                return
        keeping = asyncio.create_task(self._keep(lease))
        try:
            done = await self._refresher.refresh(service)
        except MeshError as error:
            self._metrics.refreshes.labels(service=service, outcome="failed").inc()
            log.warning("refresh failed", of=service, error=str(error))
            next_s = min(every_s, RETRY_AFTER_S)
        else:
            self._metrics.refreshes.labels(service=service, outcome="succeeded").inc()
            log.info(
                "contents refreshed", of=service, requested=done.requested, changed=done.changed, missing=done.missing
            )
            next_s = every_s
        finally:
            keeping.cancel()
        async with self._redis.guarded():
            await self._redis.client.set(keys.refreshed(service), self._owner, px=int(next_s * 1000))
            await self._redis.client.eval(_IF_OURS, 1, lease, self._owner, 0)

    async def _keep(self, lease: str) -> None:
        """Renew the lease. Losing it costs a refresh done twice, no more, so nobody needs to be stopped."""
        while True:
            await self._clock.sleep(self._lease_ms / 3000)
            try:
                async with self._redis.guarded():
                    await self._redis.client.eval(_IF_OURS, 1, lease, self._owner, self._lease_ms)
            except MeshError as error:
                log.warning("the refresh lease was not renewed", lease=lease, error=str(error))


def check_content_ids(content_ids: Sequence[str]) -> list[str]:
    """Return the ids that a caller wants refreshed, each once. Raises InvalidArgument."""
    if len(content_ids) > MAX_IDS:
        raise InvalidArgument(f"at most {MAX_IDS} content ids in a call", field="content_ids", value=len(content_ids))
    for i, content_id in enumerate(content_ids):
        if not 1 <= len(content_id.encode()) <= MAX_ID_BYTES:
            raise InvalidArgument(
                f"a content id has 1 to {MAX_ID_BYTES} bytes", field=f"content_ids[{i}]", value=content_id
            )
    return list(dict.fromkeys(content_ids))
