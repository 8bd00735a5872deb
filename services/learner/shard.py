"""A shard: one model of one placement, with how far it has learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import registry
from banditmesh.bandits.errors import BanditError
from banditmesh.bandits.policy import Policy
from banditmesh.runtime.snapshots import BadSnapshot, Manifest, Snapshot
from services.learner.catalog import ModelSpec, ShardId
from services.learner.examples import Columns


class Shard:
    """A model in memory. Used by one thread at a time."""

    def __init__(self, shard_id: ShardId, spec: ModelSpec, *, batch: int) -> None:
        """``batch``: examples that one step of learning takes at most."""
        self.id = shard_id
        self.spec = spec
        self._batch = batch
        self._policy: Policy = registry.build(spec.policy, spec.params)
        self.examples = 0
        """That the model has learned from."""
        self.duplicates = 0
        """That were dropped since the start, because their source had been applied."""
        self.offsets: dict[int, int] = {}
        """Partition of ``examples`` → the offset to go on with."""
        self.sources: dict[int, int] = {}
        """Partition of ``impressions`` → the offset of the last impression applied."""
        self.watermark_ms = 0
        self._whole = True
        """False from the first example of a cut until `advance`: what is learned and where it stands do not agree."""

    def restore(self, snapshot: Snapshot, *, after: Manifest | None = None) -> None:
        """Take the model out of a snapshot, and go on where it stopped, or where ``after`` says. Raises as `check`."""
        self._policy = self._read(snapshot)
        self.examples = snapshot.manifest.examples
        position = after or snapshot.manifest
        self.offsets, self.sources = dict(position.offsets), dict(position.sources)
        self.watermark_ms = position.watermark_ms

    def check(self, snapshot: Snapshot) -> None:
        """Whether `restore` will work.

        Raises:
            BadSnapshot: It is a model of something else ("params"), or its tensors are not the policy's ("tensors").
        """
        self._read(snapshot)

    def _read(self, snapshot: Snapshot) -> Policy:
        manifest = snapshot.manifest
        if (manifest.policy, manifest.params) != (self.spec.policy, self.spec.params):
            found = f"{manifest.policy} {manifest.params}"
            raise BadSnapshot("params", f"version {manifest.version} is {found}, configured is {self.spec}")
        try:
            return registry.load(self.spec.policy, self.spec.params, snapshot.tensors)
        except BanditError as error:
            raise BadSnapshot("tensors", f"version {manifest.version}: {error}") from error

    def learn(self, columns: Columns) -> int:
        """Learn from the examples that are new to this shard, in their order; returns how many those were."""
        fresh = _next_offsets(self.offsets, columns.partitions) <= columns.offsets
        applied = fresh & self._advances(columns, fresh)
        self.duplicates += int(fresh.sum() - applied.sum())
        rows = np.flatnonzero(applied)
        self._whole = False
        for start in range(0, len(rows), self._batch):
            self._policy.learn(columns.examples.take(rows[start : start + self._batch]))
        self.examples += len(rows)
        return len(rows)

    def advance(self, positions: Mapping[int, int], watermark_ms: int) -> None:
        """Note that everything before ``positions`` is applied. A shard that is ahead of others stays where it is."""
        self._whole = True
        for partition, offset in positions.items():
            self.offsets[partition] = max(offset, self.offsets.get(partition, 0))
        self.watermark_ms = max(self.watermark_ms, watermark_ms)

    def manifest(self, published_at_ms: int) -> Manifest:
        """What a snapshot of this moment says of itself. RuntimeError when learning has stopped half-way."""
        if not self._whole:
            raise RuntimeError(
                f"{self.id} has learned a part of what lies between two offsets; it must not be published"
            )
        return Manifest(
            placement=self.id.placement,
            model=self.id.model,
            policy=self.spec.policy,
            params=self.spec.params,
            version=0,
            published_at_ms=published_at_ms,
            examples=self.examples,
            offsets=dict(self.offsets),
            sources=dict(self.sources),
            watermark_ms=self.watermark_ms,
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """A copy of the model."""
        return self._policy.tensors()

    def _advances(self, columns: Columns, fresh: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool[n]: whose source stands behind all that were applied before, of the same partition of impressions."""
        advances = np.zeros(len(columns), np.bool_)
        for partition in np.unique(columns.source_partitions[fresh]).tolist():
            rows = np.flatnonzero(fresh & (columns.source_partitions == partition))
            highest = np.maximum.accumulate(
                np.concatenate([[self.sources.get(partition, -1)], columns.source_offsets[rows]])
            )
            advances[rows] = columns.source_offsets[rows] > highest[:-1]
            self.sources[partition] = int(highest[-1])
        return advances


def _next_offsets(offsets: Mapping[int, int], partitions: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[n]: the offset that each row's partition goes on with; 0 for one that is not known."""
    known, inverse = np.unique(partitions, return_inverse=True)
    return np.array([offsets.get(partition, 0) for partition in known.tolist()], np.int64)[inverse]
