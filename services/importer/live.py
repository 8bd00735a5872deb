"""The live pointer of a source, and the one step that makes a version live."""

from __future__ import annotations

from collections.abc import Sequence

from banditmesh.runtime import keys, packing
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.redis import RedisClient
from services.importer.failure import Failure, ImportFailed
from services.importer.lease import Lease, LeaseLost
from services.importer.metrics import ImporterMetrics

# Pointer and lease lie in one slot, so this is atomic on a Cluster too. A base that has expired meanwhile is no
# obstacle.
_GO_LIVE = """
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 'lease' end
local live = redis.call('GET', KEYS[1]) or ''
if not string.match(live, '^%d+:[01]:') then live = '' end  -- no reader takes it
if live ~= ARGV[1] and live ~= '' then return 'moved' end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 'live'
"""

log = get_logger(__name__)

RENEW_AFTER_S = 3600.0
LOOK_S = 10.0
LOOK_AGAIN_S = 1.0


class LivePointers:
    """Reads and moves live pointers."""

    def __init__(self, redis: RedisClient, *, ttl_s: float) -> None:
        """``ttl_s``: a source that is not imported again for so long has no candidates any more."""
        self._redis = redis
        self._ttl_s = ttl_s
        self.renew_after_s = min(RENEW_AFTER_S, ttl_s / 10)
        """So old a live version is imported again when it is notified again; a client's second attempt is not."""

    async def read(self, source: str) -> str:
        """Return the pointer of a source as text, empty when there is none that could be read. Raises Unavailable."""
        (value,) = await self._redis.read([keys.live(source)])
        if value is None:
            return ""
        try:
            return packing.LiveVersion.unpack(value).pack().decode()
        except ValueError as error:
            log.error("a live pointer cannot be read: there is none", source=source, reason=str(error)[:200])
            return ""

    async def go_live(self, lease: Lease, base: str, live: packing.LiveVersion) -> None:
        """Make a version live, if the pointer still is ``base`` and the lease is still ours.

        Raises:
            LeaseLost: It is not.
            ImportFailed: ``superseded``: another version went live, past the lease.
            Unavailable: Redis did not answer; the pointer may have moved or not.
        """
        lease.check()
        names = (keys.live(lease.source), keys.source_lease(lease.source))
        async with self._redis.guarded(*names):
            reply = await self._redis.client.eval(
                _GO_LIVE, len(names), *names, base, lease.token, live.pack(), int(self._ttl_s * 1000)
            )
        if reply == b"lease":
            raise LeaseLost(f"the lease of {lease.source} has another owner")
        if reply == b"moved":
            raise ImportFailed(
                Failure(
                    "superseded",
                    f"another version of {lease.source} went live meanwhile; notify again to import this one",
                )
            )

    async def ends_in_s(self, sources: Sequence[str]) -> list[float]:
        """Return in how many seconds the live version of each source expires; 0: it has none. Raises Unavailable."""
        pipeline = self._redis.pipeline()
        for source in sources:
            pipeline.pttl(keys.live(source))
        async with self._redis.guarded():
            left_ms = await pipeline.execute()
        return [max(each, 0) / 1000 for each in left_ms]


class LiveWatch:
    """Says in a metric when each source's live version ends, unless it is notified again."""

    def __init__(self, live: LivePointers, sources: Sequence[str], metrics: ImporterMetrics, clock: Clock) -> None:
        self._live = live
        self._sources = sources
        self._metrics = metrics
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled."""
        work = outages.work("live versions")
        while True:
            try:
                await self._look()
                work.well()
            except MeshError as error:
                work.failed(error)
                await self._clock.sleep(LOOK_AGAIN_S)
            else:
                await self._clock.sleep(LOOK_S)

    async def _look(self) -> None:
        left_s = await self._live.ends_in_s(self._sources)
        for source, each_s in zip(self._sources, left_s, strict=True):
            if each_s or source != keys.PROFILES:  # a mesh without profiles is none that has lost them
                self._metrics.live_ends.labels(source=source).set(self._clock.now_s() + each_s if each_s else 0)
