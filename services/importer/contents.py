"""Contents that a mapping names and that nobody knows yet."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.lengths import MAX_CONTENT_IDS
from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisClient
from services.importer.failure import JobWarning
from services.importer.jobs import JOB_TTL_S
from services.importer.metrics import ImporterMetrics
from services.importer.provider_calls import ProviderCalls
from services.importer.redis_contents import CHUNK, RedisContents

CALLS_AT_ONCE = 4


@dataclass(eq=False)
class ContentImport:
    """Brings in the contents of one job.

    What was new and what was missing is counted by sets of keys in Redis, written before the contents: a job that is
    resumed meets some of them again and counts each once.
    """

    redis: RedisClient
    contents: RedisContents
    providers: ProviderCalls
    metrics: ImporterMetrics
    job_id: str
    service: str
    new: int = 0
    """Contents that the job was the first to see."""
    missing: int = 0
    """Contents that the provider does not have (or whose expiry has passed)."""
    _warnings: list[JobWarning] = field(default_factory=list)

    async def count(self) -> None:
        """Read what has been counted so far, by earlier runs of the job too."""
        new, missing = (keys.job_contents(self.job_id, outcome) for outcome in ("new", "missing"))
        async with self.redis.guarded(new, missing):
            self.new = await self.redis.client.scard(new)
            self.missing = await self.redis.client.scard(missing)

    def take_warnings(self) -> list[JobWarning]:
        """Return what there was to warning since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    async def ensure(self, content_ids: Sequence[str]) -> None:
        """Make these contents known, as far as they exist.

        Raises:
            ProviderUnavailable, ProviderFailed, Unavailable: What is in by then stays; nothing is counted twice.
        """
        if not content_ids:
            return
        unknown = await self.contents.confirm(self.service, content_ids)
        slots = asyncio.Semaphore(CALLS_AT_ONCE)

        async def fetch(wanted: Sequence[str]) -> None:
            async with slots:
                await self._fetch(wanted)

        size = min(MAX_CONTENT_IDS, CHUNK)
        chunks = [unknown[start : start + size] for start in range(0, len(unknown), size)]
        calls = [asyncio.ensure_future(fetch(chunk)) for chunk in chunks]
        try:
            await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await self.count()

    async def _fetch(self, content_ids: Sequence[str]) -> None:
        if self.providers.has_provider(self.service):
            answer = await self.providers.get_contents(self.service, content_ids)
            contents = answer.contents
            self._warnings += [
                JobWarning("content_rejected", f"the Data Provider's {each.content_id[:64]!r}: {each.reason}")
                for each in answer.rejected
            ]
        else:
            contents = [provider_pb2.Content(content_id=content_id) for content_id in content_ids]
        alive = [content for content in contents if not self.contents.has_expired(content)]
        found = {content.content_id for content in alive}
        gone = [content_id for content_id in content_ids if content_id not in found]
        if gone:
            message = f"the Data Provider has no {gone[0][:64]!r}: it is never shown"
            self._warnings.append(JobWarning("content_missing", message, count=len(gone)))
        await self._count("new", found)
        changed = await self.contents.save(self.service, alive)
        await self._count("missing", gone)
        for outcome, count in (("changed", changed), ("same", len(alive) - changed), ("missing", len(gone))):
            self.metrics.contents.labels(service=self.service, outcome=outcome).inc(count)

    async def _count(self, outcome: str, content_ids: Collection[str]) -> None:
        if not content_ids:
            return
        name = keys.job_contents(self.job_id, outcome)
        pipeline = self.redis.pipeline()
        pipeline.sadd(name, *(content_key(self.service, content_id) for content_id in content_ids))
        pipeline.pexpire(name, int(JOB_TTL_S * 1000))
        async with self.redis.guarded(name):
            await pipeline.execute()
