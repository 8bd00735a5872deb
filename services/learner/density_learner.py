"""The density's loop: read impressions and clicks as they come, update the sums, publish what has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import Aborted, MeshError, Unavailable
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.snapshots import BadSnapshot, Manifest, Snapshots, Superseded
from banditmesh.runtime.stream import Consumed
from services.learner.catalog import ShardId
from services.learner.density_events import Decoder
from services.learner.density_shard import DensityShard, Offsets
from services.learner.metrics import LearnerMetrics
from services.learner.reader import Known, Reader
from services.learner.rollback import must_be_there, taken_back, unusable

log = get_logger(__name__)

_READING = "impressions and reactions for densities"

CLICKS, SHOWS = "clicks", "shows"
POLL_S: Final = 0.1
RETRY_S: Final = 1.0
FULLS_KEPT: Final = 4
DELTAS_KEPT: Final = 20

OpenReader = Callable[[str, Known], AbstractAsyncContextManager[Reader]]
"""Of :data:`CLICKS` or :data:`SHOWS`, at given positions, or rather by :data:`density_events.REMEMBERED` offsets before
them: what was counted tells which events are second copies of it."""


class DensityLearner:
    """Feeds and publishes every density of this replica.

    A process that dies loses what it had not published, and reads it again: positions are published with the sums.
    """

    def __init__(
        self,
        shards: Sequence[DensityShard],
        open_reader: OpenReader,
        snapshots: Snapshots,
        thread: ThreadPoolExecutor,
        clock: Clock,
        metrics: LearnerMetrics,
    ) -> None:
        """``thread``: where sums are touched."""
        self.shards: Mapping[ShardId, DensityShard] = {shard.id: shard for shard in shards}
        self._open_reader = open_reader
        self._snapshots = snapshots
        self._thread = thread
        self._clock = clock
        self._metrics = metrics
        self._bases: dict[tuple[ShardId, int], int] = {}
        self.restored = asyncio.Event()
        self._again = asyncio.Event()
        """Set: a shard has gone back; read anew from where the shards stand."""

    async def run(self) -> None:
        """Learn and publish until cancelled. Raises Superseded when another learner publishes a density."""
        if not self.shards:
            await asyncio.Event().wait()
        for shard in self.shards.values():
            await self._restore(shard)
        self.restored.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_for_ever())
            for shard in self.shards.values():
                group.create_task(self._publish_for_ever(shard))

    # -- reading

    async def _read_for_ever(self) -> None:
        while True:
            self._again.clear()
            try:
                async with (
                    self._open_reader(CLICKS, self._known(CLICKS)) as clicks,
                    self._open_reader(SHOWS, self._known(SHOWS)) as shows,
                ):
                    await self._follow({CLICKS: clicks, SHOWS: shows})
            except Unavailable as error:
                outages.failed(_READING, error)
                await self._clock.sleep(RETRY_S)

    def _known(self, which: str) -> Known:
        positions: dict[int, list[tuple[int, int]]] = {}
        for shard in self.shards.values():
            offsets: Offsets = getattr(shard, which)
            for partition, offset in offsets.next.items():
                positions.setdefault(partition, []).append((offset, offsets.logs.get(partition, 0)))
        # A partition that one shard knows and another does not is read from its beginning.
        return {partition: found for partition, found in positions.items() if len(found) == len(self.shards)}

    async def _follow(self, readers: Mapping[str, Reader]) -> None:
        decoders = {which: Decoder(which) for which in readers}
        for which, reader in readers.items():
            for shard in self.shards.values():
                shard.adopt(which, dict(reader.logs))
        while not self._again.is_set():
            # Both at once: the one that has nothing waits, and the other must not wait for it.
            found = await asyncio.gather(*(reader.read(list(reader.positions), POLL_S) for reader in readers.values()))
            for (which, reader), partitions in zip(readers.items(), found, strict=True):
                for partition, records in partitions.items():
                    await self._take(which, partition, records, decoders[which])
                self._metrics.density_lag.labels(which).set(sum(reader.lag().values()))
            outages.well(_READING)
            if any(reader.grown() for reader in readers.values()):
                return

    async def _take(self, which: str, partition: int, records: Sequence[Consumed], decoder: Decoder) -> None:
        events = decoder.events(records)
        loop = asyncio.get_running_loop()
        for shard in self.shards.values():
            async with shard.lock:
                if self._again.is_set():
                    return
                new = await loop.run_in_executor(
                    self._thread, shard.take, which, partition, events, records[-1].offset + 1
                )
            self._metrics.density_events.labels(shard.id.placement, which).inc(new)

    # -- publishing

    async def _publish_for_ever(self, shard: DensityShard) -> None:
        while True:
            await self._clock.sleep(shard.options.publish_every)
            await self.publish(shard)

    async def publish_all(self) -> None:
        """Publish what is new, at the end. Raises Superseded."""
        if self.restored.is_set():
            for shard in self.shards.values():
                await self.publish(shard)

    async def publish(self, shard: DensityShard) -> bool:
        """Publish what has changed, if anything; False when the store did not take it: the next one holds it too.
        Raises Superseded."""
        work = f"publishing {'/'.join(shard.id)}"
        async with shard.lock:
            if shard.sums.events == shard.published_events:
                return True
            now_s = self._clock.now_s()
            full = shard.wants_full(now_s)
            loop = asyncio.get_running_loop()
            events = shard.sums.events
            manifest, tensors = await loop.run_in_executor(
                self._thread, lambda: shard.state(full=full, now_ms=int(now_s * 1000))
            )
            try:
                with self._metrics.publish.time():
                    shard.pointer = await self._snapshots.publish(manifest, tensors, after=shard.pointer)
            except (MeshError, BadSnapshot) as error:
                self._metrics.publish_failures.labels(reason=error.reason.lower()).inc()
                outages.failed(work, error)
                return False
            outages.well(work)
            version = shard.pointer.version
            if full:
                shard.base, shard.full_at_s = version, now_s
            shard.published_events, shard.published_at_ms = events, manifest.published_at_ms
            self._bases[shard.id, version] = shard.base if not full else 0
            self._show(shard)
        await self._forget_old(shard)
        return True

    async def rollback(self, shard: DensityShard, version: int, *, relearn: bool) -> Manifest:
        """Publish an older version again, base and delta as one, and go on from it; returns the new version's manifest.

        Raises NotFound, DataLoss, Aborted and Unavailable, as ``Rollback`` does.
        """
        async with shard.lock:
            await must_be_there(self._snapshots, shard.id, version)
            try:
                sums, older = await shard.load(self._snapshots, version)
            except BadSnapshot as error:
                raise unusable(shard.id, version, error) from error
            now = shard.manifest(int(self._clock.now_s() * 1000), 0)
            manifest = taken_back(older.manifest, now, relearn=relearn)
            try:
                shard.pointer = await self._snapshots.publish(manifest, older.tensors, after=shard.pointer)
            except Superseded as error:
                raise Aborted(str(error), hint="another learner runs with the same ordinal") from error
            shard.restore(sums, manifest)
            self._bases[shard.id, shard.pointer.version] = manifest.base
            self._show(shard)
            if relearn:
                self._again.set()
        log.warning("rolled back", shard=shard.id, to=version, version=shard.pointer.version, relearn=relearn)
        return replace(manifest, version=shard.pointer.version, sha256=older.manifest.sha256)

    # -- versions

    async def _restore(self, shard: DensityShard) -> None:
        while True:
            try:
                shard.pointer = await self._snapshots.pointer(*shard.id)
                if shard.pointer is None:
                    return
                older = [each for each in await self._snapshots.versions(*shard.id) if each < shard.pointer.version]
                for version in (shard.pointer.version, *reversed(older)):
                    try:
                        sums, snapshot = await shard.load(self._snapshots, version)
                    except BadSnapshot as error:
                        self._metrics.bad_snapshots.labels(reason=error.reason).inc()
                        log.error(
                            "bad density: trying the one before", shard=shard.id, version=version, reason=str(error)
                        )
                        continue
                    shard.restore(sums, snapshot.manifest)
                    self._show(shard)
                    log.info("density restored", shard=shard.id, version=version, contents=len(sums))
                    return
                return
            except MeshError as error:
                outages.failed(f"restoring {'/'.join(shard.id)}", error)
                await self._clock.sleep(RETRY_S)

    async def _forget_old(self, shard: DensityShard) -> None:
        """Delete old versions. A full snapshot stays as long as a delta to it does."""
        try:
            versions = await self._snapshots.versions(*shard.id)
            bases = {version: await self._base(shard, version) for version in versions}
            for version in superfluous(bases):
                await self._snapshots.remove(*shard.id, version)
                self._bases.pop((shard.id, version), None)
        except MeshError as error:
            outages.failed(f"deleting old {'/'.join(shard.id)}", error)
        else:
            outages.well(f"deleting old {'/'.join(shard.id)}")

    async def _base(self, shard: DensityShard, version: int) -> int:
        known = self._bases.get((shard.id, version))
        if known is None:
            try:
                known = (await self._snapshots.manifest(*shard.id, version)).base
            except BadSnapshot:  # what cannot be read is nothing that another one needs
                known = 0
            self._bases[shard.id, version] = known
        return known

    def _show(self, shard: DensityShard) -> None:
        self._metrics.version.labels(*shard.id).set(shard.pointer.version if shard.pointer else 0)
        self._metrics.published.labels(*shard.id).set(shard.published_at_ms / 1000)
        self._metrics.density_contents.labels(shard.id.placement).set(len(shard.sums))


def superfluous(bases: Mapping[int, int]) -> list[int]:
    """The versions to delete, the oldest first. ``bases``: of each version, what it is a delta to; 0: it is full."""
    versions = sorted(bases)
    fulls = [each for each in versions if not bases[each]]
    deltas = [each for each in versions if bases[each]]
    stay = {*fulls[-FULLS_KEPT:], *deltas[-DELTAS_KEPT:], *versions[-1:]}
    stay |= {bases[each] for each in stay if bases[each]}
    return [each for each in versions if each not in stay]
