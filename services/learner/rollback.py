"""Taking a model back to an older snapshot."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Aborted, DataLoss, NotFound
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.snapshots import BadSnapshot, Manifest, Snapshot, Snapshots, Superseded
from services.learner.catalog import ShardId
from services.learner.learner import Learner
from services.learner.publisher import Publisher
from services.learner.shard import Shard

log = get_logger(__name__)


class Rollback:
    """Publishes an older version again and goes on learning from it."""

    def __init__(
        self, snapshots: Snapshots, publisher: Publisher, learner: Learner, thread: ThreadPoolExecutor, clock: Clock
    ) -> None:
        self._snapshots = snapshots
        self._publisher = publisher
        self._learner = learner
        self._thread = thread
        self._clock = clock

    async def __call__(self, shard: Shard, version: int, *, relearn: bool) -> Manifest:
        """The manifest of the new version. Either both the store and the shard are taken back, or neither.

        Args:
            relearn: Whether to learn again what came since that version, instead of forgetting it.

        Raises:
            NotFound: There is no such version; names those that there are.
            DataLoss: It is there and broken.
            Aborted: Another learner publishes this model.
            Unavailable: The store is away.
        """
        async with self._publisher.published[shard.id].lock, self._learner.learning:
            older = await self._load(shard, version)
            now = shard.manifest(int(self._clock.now_s() * 1000))
            manifest = taken_back(older.manifest, now, relearn=relearn)
            try:
                newest = await self._publisher.publish(manifest, older.tensors)
            except Superseded as error:
                raise Aborted(str(error), hint="another learner runs with the same ordinal") from error
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, lambda: shard.restore(older, after=manifest))
            if relearn:
                self._learner.rewind()
        log.warning("rolled back", shard=shard.id, to=version, version=newest, relearn=relearn)
        return replace(manifest, version=newest, sha256=older.manifest.sha256)

    async def _load(self, shard: Shard, version: int) -> Snapshot:
        try:
            await must_be_there(self._snapshots, shard.id, version)
            snapshot = await self._snapshots.load(*shard.id, version)
            shard.check(snapshot)
        except BadSnapshot as error:
            raise unusable(shard.id, version, error) from error
        return snapshot


def taken_back(older: Manifest, now: Manifest, *, relearn: bool) -> Manifest:
    """What the new version says that repeats ``older``. ``now``: of the state that it takes the place of; its positions
    stay, unless what came since is to be learned again."""
    position = older if relearn else now
    return replace(
        older,
        published_at_ms=now.published_at_ms,
        offsets=position.offsets,
        sources=position.sources,
        logs=position.logs,
        source_logs=position.source_logs,
        watermark_ms=position.watermark_ms,
        rolled_back_to=older.version,
    )


async def must_be_there(snapshots: Snapshots, shard_id: ShardId, version: int) -> None:
    """Raises NotFound, naming the versions that there are, and what the store raises."""
    available = await snapshots.versions(*shard_id)
    if version not in available:
        raise NotFound(
            f"{shard_id.placement}/{shard_id.model} has no version {version}",
            field="version",
            value=version,
            hint=f"there are {', '.join(map(str, available)) or 'none yet'}",
        )


def unusable(shard_id: ShardId, version: int, error: BadSnapshot) -> DataLoss:
    """What is raised about a version that is there and broken."""
    return DataLoss(
        f"version {version} of {shard_id.placement}/{shard_id.model} cannot be used: {error}",
        field="version",
        value=version,
        hint="choose another one; ListSnapshots names them",
    )
