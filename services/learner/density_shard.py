"""The density of one placement: its sums, how far its two topics are in them, and which versions it has published."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.errors import BanditError
from banditmesh.retrieval.density import DensityParams, DensitySums, Events
from banditmesh.runtime.retrieval_options import Density
from banditmesh.runtime.snapshots import BadSnapshot, Manifest, Pointer, Snapshot, Snapshots
from services.learner.catalog import ShardId
from services.learner.density_events import DensityEvent

DENSITY = "density"
"""In the place of a policy's name."""
FULL_SHARE = 0.5
"""A delta of more than this share of the contents is no gain."""


@dataclass(frozen=True)
class Offsets:
    """How far a topic is in the sums.

    Attributes:
        next: Partition → the offset to go on with.
        logs: Partition → which log that offset counts.
    """

    next: dict[int, int] = field(default_factory=dict)
    logs: dict[int, int] = field(default_factory=dict)


class DensityShard:
    """Sums in memory. What changes it holds ``lock``."""

    def __init__(self, shard_id: ShardId, options: Density, params: DensityParams) -> None:
        self.id = shard_id
        self.options = options
        self.params = params
        self.lock = asyncio.Lock()
        self.sums = DensitySums(params)
        self.clicks, self.shows = Offsets(), Offsets()
        self.pointer: Pointer | None = None
        self.published_events = 0
        self.published_at_ms = 0
        self.base = 0
        """The full snapshot that a delta can be to; 0: there is none, so the next one must be full."""
        self.full_at_s = 0.0

    def adopt(self, which: str, logs: dict[int, int]) -> None:
        """Let go of offsets that count another log than the one that is read; the sums stay. ``which``: clicks or
        shows."""
        known: Offsets = getattr(self, which)
        for partition, log in logs.items():
            if known.logs.get(partition, 0) not in (0, log):
                known.next.pop(partition, None)
            known.logs[partition] = log

    def take(self, which: str, partition: int, events: Sequence[DensityEvent], following: int) -> int:
        """Take in what has been read of a partition, up to the offset ``following``; returns how many were new.

        Args:
            which: clicks or shows.
            partition: Of their topic.
            events: In the order of their offsets; those of other placements are passed over.
            following: The offset to go on with.
        """
        known: Offsets = getattr(self, which)
        start = known.next.get(partition, 0)
        new = [each for each in events if each.offset >= start and each.placement == self.id.placement]
        batch = Events(
            np.array([each.content for each in new], np.uint64),
            [each.user_vector for each in new],
            np.array([each.time_s for each in new], np.float64),
        )
        (self.sums.clicked if which == "clicks" else self.sums.shown)(batch)
        known.next[partition] = max(start, following)
        return len(new)

    def wants_full(self, now_s: float) -> bool:
        """Whether the next publication must hold everything."""
        return (
            not self.base
            or not self.sums.can_be_delta
            or now_s - self.full_at_s >= self.options.full_every
            or self.sums.changed > FULL_SHARE * len(self.sums)
        )

    def state(self, *, full: bool, now_ms: int) -> tuple[Manifest, dict[str, NDArray[Any]]]:
        """What is to be published."""
        tensors = self.sums.full() if full else self.sums.delta()
        if full:
            self.base = 0  # until it is published
        return self.manifest(now_ms, 0 if full else self.base), tensors

    def manifest(self, now_ms: int, base: int) -> Manifest:
        """What a snapshot of this moment says of itself. ``offsets`` are those of the reactions, ``sources`` those of
        the impressions."""
        return Manifest(
            placement=self.id.placement,
            model=self.id.model,
            policy=DENSITY,
            params=asdict(self.params),
            version=0,
            published_at_ms=now_ms,
            examples=self.sums.events,
            offsets=dict(self.clicks.next),
            sources=dict(self.shows.next),
            logs=dict(self.clicks.logs),
            source_logs=dict(self.shows.logs),
            watermark_ms=int(self.sums.now_s * 1000),
            base=base,
        )

    def restore(self, sums: DensitySums, manifest: Manifest) -> None:
        """Go on with these sums where the manifest says. The next publication is a full one."""
        self.sums = sums
        self.clicks = Offsets(dict(manifest.offsets), dict(manifest.logs))
        self.shows = Offsets(dict(manifest.sources), dict(manifest.source_logs))
        self.published_events, self.published_at_ms = sums.events, manifest.published_at_ms
        self.base = 0

    async def load(self, snapshots: Snapshots, version: int) -> tuple[DensitySums, Snapshot]:
        """The sums of a version, its base included. Raises BadSnapshot, and what the store raises."""
        newest = await snapshots.load(*self.id, version)
        base = newest.manifest.base
        full = await snapshots.load(*self.id, base) if base else newest
        for each in (newest, full):
            if each.manifest.params != asdict(self.params):
                raise BadSnapshot("params", f"version {each.manifest.version} is {each.manifest.params}")
        if full.manifest.base:
            raise BadSnapshot("params", f"version {base} is itself a delta")

        def read() -> DensitySums:
            sums = DensitySums.from_tensors(self.params, full.tensors)
            if base:
                sums.apply(newest.tensors)
            return sums

        try:
            return await asyncio.to_thread(read), newest
        except BanditError as error:
            raise BadSnapshot("tensors", f"version {version}: {error}") from error
