"""Shards to snapshots and back: what is published, when, and what happens when the store is away."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.outages import outages
from banditmesh.runtime.snapshots import BadSnapshot, Manifest, Pointer, Snapshots, Superseded
from services.learner.catalog import ShardId
from services.learner.metrics import LearnerMetrics
from services.learner.positions import Position, Positions
from services.learner.retention import Retention
from services.learner.shard import Shard

log = get_logger(__name__)

RETRY_FIRST_S, RETRY_MOST_S = 1.0, 30.0
POSITIONS_EVERY = 10
"""Turns of publishing after which the positions of shards without news are written."""


@dataclass
class Published:
    """What of a shard stands in the store."""

    pointer: Pointer | None = None
    examples: int = 0
    withheld: int = -1
    """How many examples a state had that was worse than the published one: it is not looked at again."""
    held_back: int = 0
    """How many states in a row were worse than the published one: the first is said, all are counted."""
    at_ms: int = 0
    position: Position | None = None
    """Where the shard stood when that was written last."""
    lost: bool = False
    """Another learner publishes it: we must not any more."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Publisher:
    """Restores shards from the store at the start, and publishes them while they learn.

    Shards are touched on ``thread`` alone, where they learn too: between two pieces of work there they are whole.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        positions: Positions,
        shards: Iterable[Shard],
        learning: asyncio.Lock,
        thread: ThreadPoolExecutor,
        clock: Clock,
        metrics: LearnerMetrics,
        *,
        keep: int,
    ) -> None:
        """
        Args:
            learning: Held while a piece of work changes shards.
            keep: How many genuine versions of a model stay in the store, beside those of rollbacks.
        """
        self._snapshots = snapshots
        self._positions = positions
        self._learning = learning
        self._shards = list(shards)
        self._thread = thread
        self._clock = clock
        self._metrics = metrics
        self._retention = Retention(snapshots, keep=keep)
        self.published: Mapping[ShardId, Published] = {shard.id: Published() for shard in self._shards}
        self.restored = asyncio.Event()
        """Set once the shards stand where their snapshots do."""

    async def restore(self) -> None:
        """Bring every shard to its newest good snapshot.

        Waits as long as the store is away: without it nobody knows where to start.
        """
        for shard in self._shards:
            await self.restore_one(shard)
        self.restored.set()

    async def restore_one(self, shard: Shard) -> None:
        """Bring a shard to its newest good snapshot; waits as long as the store is away."""
        pause_s = RETRY_FIRST_S
        while True:
            try:
                await self._restore(shard)
                outages.well(_work("restoring", shard))
                return
            except MeshError as error:
                outages.failed(_work("restoring", shard), error)
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MOST_S)

    async def run(self, every_s: float) -> None:
        """Publish what has learned something, again and again. Raises Superseded when another learner publishes it."""
        await self.restored.wait()
        pause_s, retry_s = every_s, RETRY_FIRST_S
        for turn in itertools.count(1):
            await self._clock.sleep(pause_s)
            if await self.publish_all(positions=turn % POSITIONS_EVERY == 0):
                pause_s, retry_s = every_s, RETRY_FIRST_S
            else:
                pause_s, retry_s = min(retry_s, every_s), min(2 * retry_s, RETRY_MOST_S)

    async def publish_all(self, *, positions: bool = True) -> bool:
        """Publish every shard that has learned something; False when one could not be.

        Args:
            positions: Whether to write also where those stand that have only read on.

        Raises Superseded, after the others are published, when one was published by another learner.
        """
        done: list[bool] = []
        superseded: Superseded | None = None
        for shard in self._shards:
            try:
                done.append(await self._publish_news(shard, positions))
            except Superseded as error:
                log.error("another learner publishes this model; do two have the same ordinal?", shard=shard.id)
                superseded = error
        if superseded is not None:
            raise superseded
        return all(done)

    async def publish(self, manifest: Manifest, tensors: Mapping[str, NDArray[Any]]) -> int:
        """Publish a state of a shard whose lock the caller holds, return its version. Raises as `Snapshots.publish`."""
        state = self.published[ShardId(manifest.placement, manifest.model)]
        try:
            with self._metrics.publish.time():
                state.pointer = await self._snapshots.publish(manifest, tensors, after=state.pointer)
        except Superseded:
            state.lost = True
            raise
        state.examples, state.at_ms = manifest.examples, manifest.published_at_ms
        state.withheld, state.held_back = -1, 0
        self._show(ShardId(manifest.placement, manifest.model), state)
        await self._forget_old(manifest.placement, manifest.model)
        return state.pointer.version

    async def _publish_news(self, shard: Shard, positions: bool) -> bool:
        state = self.published[shard.id]
        async with state.lock:
            if state.lost:
                return True
            async with self._learning:
                if shard.examples == state.withheld:
                    return True
                if shard.examples == state.examples:
                    position = shard.position(state.pointer.version if state.pointer else 0)
                    return not positions or await self._write_position(shard, state, position)
                loop = asyncio.get_running_loop()
                manifest, tensors = await loop.run_in_executor(self._thread, self._copy, shard)
                worse = await loop.run_in_executor(self._thread, self._validated, shard)
            if worse:
                if not state.held_back:
                    log.warning("snapshot withheld: worse than the one before", shard=shard.id, **worse)
                state.withheld, state.held_back = manifest.examples, state.held_back + 1
                return True
            held_back = state.held_back
            try:
                version = await self.publish(manifest, tensors)
                await loop.run_in_executor(self._thread, shard.published, tensors)
            except (MeshError, BadSnapshot) as error:
                self._metrics.publish_failures.labels(reason=error.reason.lower()).inc()
                outages.failed(_work("publishing", shard), error)
                return False
        outages.well(_work("publishing", shard))
        after = {"after_withheld": held_back} if held_back else {}
        log.info("snapshot published", shard=shard.id, version=version, examples=manifest.examples, **after)
        return True

    async def _write_position(self, shard: Shard, state: Published, position: Position) -> bool:
        if position == state.position or not position.offsets:
            return True
        try:
            await self._positions.put(shard.id, position)
        except MeshError as error:
            self._metrics.publish_failures.labels(reason=error.reason.lower()).inc()
            outages.failed(_work("position of", shard), error)
            return False
        outages.well(_work("position of", shard))
        state.position = position
        return True

    def _validated(self, shard: Shard) -> Mapping[str, str]:
        """By which metrics a shard must not be published; see `Validation.worse`."""
        if shard.validation is None:
            return {}
        both = shard.validation.quality()
        for which, quality in zip(("learning", "published"), both or (), strict=bool(both)):
            for metric, value in vars(quality).items():
                self._metrics.validation.labels(*shard.id, metric, which).set(value)
        worse = shard.validation.worse()
        for metric in worse:
            self._metrics.withheld.labels(*shard.id, metric).inc()
        return worse

    def _copy(self, shard: Shard) -> tuple[Manifest, dict[str, NDArray[Any]]]:
        return shard.manifest(int(self._clock.now_s() * 1000)), shard.tensors()

    async def _restore(self, shard: Shard) -> None:
        state = self.published[shard.id]
        state.withheld, state.held_back = -1, 0
        state.pointer = await self._snapshots.pointer(*shard.id)
        if state.pointer is None:
            state.examples = 0
            shard.reset(await self._positions.get(shard.id, 0))
            log.info("no snapshot yet: learning from the beginning, or on from a position", shard=shard.id)
            return
        older = [each for each in await self._snapshots.versions(*shard.id) if each < state.pointer.version]
        for version in (state.pointer.version, *reversed(older)):
            try:
                snapshot = await self._snapshots.load(*shard.id, version)
                shard.restore(snapshot, after=await self._positions.get(shard.id, version))
            except BadSnapshot as error:
                self._metrics.bad_snapshots.labels(reason=error.reason).inc()
                log.error("bad snapshot: trying the one before", shard=shard.id, version=version, reason=str(error))
                continue
            state.examples, state.at_ms = shard.examples, snapshot.manifest.published_at_ms
            self._show(shard.id, state)
            log.info("restored", shard=shard.id, version=version, examples=shard.examples, offsets=shard.offsets)
            return
        state.examples = 0
        shard.reset()
        log.error("no snapshot can be used: learning from the beginning", shard=shard.id)

    async def _forget_old(self, placement: str, model: str) -> None:
        """Delete what is older than the versions to keep. That it fails harms nobody: the next one does it."""
        try:
            await self._retention.apply(ShardId(placement, model))
        except MeshError as error:
            outages.failed(f"deleting old snapshots of {placement}/{model}", error)
        else:
            outages.well(f"deleting old snapshots of {placement}/{model}")

    def _show(self, shard_id: ShardId, state: Published) -> None:
        self._metrics.version.labels(*shard_id).set(state.pointer.version if state.pointer else 0)
        self._metrics.published.labels(*shard_id).set(state.at_ms / 1000)


def _work(what: str, shard: Shard) -> str:
    return f"{what} {'/'.join(shard.id)}"
