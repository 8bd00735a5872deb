"""A shard: one model of one placement, with how far it has learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import registry
from banditmesh.bandits.errors import BanditError
from banditmesh.bandits.policy import Policy
from banditmesh.runtime.snapshots import BadSnapshot, Manifest, Snapshot
from services.learner.catalog import ModelSpec, ShardId
from services.learner.examples import Columns
from services.learner.positions import HasPosition, Position
from services.learner.validation import Validation


@dataclass(frozen=True)
class Learned:
    """What became of examples.

    Attributes:
        applied: How many the model has learned from.
        refused: Of each that the policy refused, its row in the columns, and why.
    """

    applied: int
    refused: Sequence[tuple[int, str]] = ()


class LearningFailed(Exception):
    """A policy has raised what is no refusal, and may be left half changed: a bug, found by some example.

    Attributes:
        shard: Must be restored before it is used again.
        rows: Partition and offset of the examples among which it is.
    """

    def __init__(self, shard: Shard, rows: frozenset[tuple[int, int]]) -> None:
        super().__init__(f"{shard.id} failed on one of {len(rows)} examples")
        self.shard = shard
        self.rows = rows


class State(Protocol):
    """What a shard keeps of the examples: a model, or sums."""

    def learn(self, columns: Columns, rows: NDArray[np.intp]) -> None:
        """Take in these rows, all or none of them. Raises BanditError when one is refused."""
        ...

    def tensors(self) -> dict[str, NDArray[Any]]:
        """A copy of it."""
        ...


@dataclass(frozen=True, eq=False)
class Model:
    """A policy that learns."""

    policy: Policy

    def learn(self, columns: Columns, rows: NDArray[np.intp]) -> None:
        """See `State`."""
        self.policy.learn(columns.examples.take(rows))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """See `State`."""
        return self.policy.tensors()


class Shard:
    """A model in memory. Used by one thread at a time."""

    def __init__(self, shard_id: ShardId, spec: ModelSpec, *, batch: int) -> None:
        """``batch``: examples that one step of learning takes at most."""
        self.id = shard_id
        self.spec = spec
        self._batch = batch
        self._state = self._fresh()
        self.examples = 0
        """That the model has learned from."""
        self.duplicates = 0
        """That were dropped since the start, because their source had been applied."""
        self.offsets: dict[int, int] = {}
        """Partition of ``examples`` → the offset to go on with."""
        self.logs: dict[int, int] = {}
        """Partition of ``examples`` → which log that offset counts."""
        self.sources: dict[int, int] = {}
        """Partition of ``impressions`` → the offset of the last impression applied."""
        self.source_logs: dict[int, int] = {}
        """Partition of ``impressions`` → which log that offset counts."""
        self.suspects: frozenset[tuple[int, int]] = frozenset()
        """Partition and offset of examples to be learned from with a copy at hand: one of them made learning fail."""
        self.watermark_ms = 0
        self.validation: Validation | None = None
        """None: what it has learned is published whatever it is."""
        self._whole = True
        """False from the first example of a cut until `advance`: what is learned and where it stands do not agree."""

    def _fresh(self) -> State:
        """What has learned nothing."""
        return Model(registry.build(self.spec.policy, self.spec.params))

    def _load(self, tensors: Mapping[str, NDArray[Any]]) -> State:
        """What `State.tensors` was called of. Raises BanditError."""
        return Model(registry.load(self.spec.policy, self.spec.params, tensors))

    def restore(self, snapshot: Snapshot, *, after: HasPosition | None = None) -> None:
        """Take the model out of a snapshot, and go on where it stopped, or where ``after`` says. Raises as `check`."""
        self._state = self._read(snapshot)
        self.published(snapshot.tensors)
        self.examples = snapshot.manifest.examples
        self.go_to(after or snapshot.manifest)

    def reset(self, position: HasPosition | None = None) -> None:
        """Begin at the prior, at a position or at the beginning."""
        self._state = self._fresh()
        self.published(None)
        self.examples = 0
        self.go_to(position or Position({}))

    def published(self, tensors: Mapping[str, NDArray[Any]] | None) -> None:
        """This is the model that is published now; None: none is."""
        if self.validation is not None:
            state = None if tensors is None else self._load(tensors)
            self.validation.publish(state.policy if isinstance(state, Model) else None)

    def go_to(self, position: HasPosition) -> None:
        """Stand at a position with the model as it is."""
        self._whole = True
        self.offsets, self.logs = dict(position.offsets), dict(position.logs)
        self.sources, self.source_logs = dict(position.sources), dict(position.source_logs)
        self.watermark_ms = position.watermark_ms

    def adopt(self, logs: Mapping[int, int]) -> None:
        """Let go of offsets that count another log than the one that is read; the model stays.

        Args:
            logs: Partition of ``examples`` → the log that is read.
        """
        for partition, log in logs.items():
            if self.logs.get(partition, 0) not in (0, log):
                self.offsets.pop(partition, None)
            self.logs[partition] = log

    def check(self, snapshot: Snapshot) -> None:
        """Whether `restore` will work.

        Raises:
            BadSnapshot: It is a model of something else ("params"), or its tensors are not the policy's ("tensors").
        """
        self._read(snapshot)

    def _read(self, snapshot: Snapshot) -> State:
        manifest = snapshot.manifest
        if (manifest.policy, manifest.params) != (self.spec.policy, self.spec.params):
            found = f"{manifest.policy} {manifest.params}"
            raise BadSnapshot("params", f"version {manifest.version} is {found}, configured is {self.spec}")
        try:
            return self._load(snapshot.tensors)
        except BanditError as error:
            raise BadSnapshot("tensors", f"version {manifest.version}: {error}") from error

    def learn(self, columns: Columns) -> Learned:
        """Learn from the examples that are new to this shard, in their order.

        What the policy refuses is found by bisection and left out; the others are learned from.

        Raises:
            LearningFailed: The policy raised something else.
        """
        fresh = _next_offsets(self.offsets, columns.partitions) <= columns.offsets
        applied = fresh & self._advances(columns, fresh)
        self.duplicates += int(fresh.sum() - applied.sum())
        rows = np.flatnonzero(applied)
        self._whole = False
        refused: list[tuple[int, str]] = []
        for start in range(0, len(rows), self._batch):
            some = rows[start : start + self._batch]
            if self.validation is not None and isinstance(self._state, Model):
                self.validation.see(self._state.policy, columns.examples.take(some))
            refused += self._learn(columns, some)
        learned = len(rows) - len(refused)
        self.examples += learned
        return Learned(learned, refused)

    def _learn(self, columns: Columns, rows: NDArray[np.intp]) -> list[tuple[int, str]]:
        """Learn from rows; those that are refused, and why."""
        names = frozenset(zip(columns.partitions[rows].tolist(), columns.offsets[rows].tolist(), strict=True))
        before = self._state.tensors() if names & self.suspects else None
        try:
            self._state.learn(columns, rows)
            return []
        except BanditError as error:  # all or nothing: the model is as it was
            reason = str(error)
        except Exception as error:
            if before is None:
                raise LearningFailed(self, names) from error
            self._state = self._load(before)
            reason = repr(error)
        if len(rows) == 1:
            return [(int(rows[0]), reason)]
        half = len(rows) // 2
        return self._learn(columns, rows[:half]) + self._learn(columns, rows[half:])

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
            logs=dict(self.logs),
            source_logs=dict(self.source_logs),
            watermark_ms=self.watermark_ms,
            features=dict(self.spec.features),
        )

    def position(self, version: int) -> Position:
        """Where the shard stands. ``version``: the snapshot that holds its model; 0: none does."""
        return Position(
            dict(self.offsets), dict(self.logs), dict(self.sources), dict(self.source_logs), self.watermark_ms, version
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """A copy of the model."""
        return self._state.tensors()

    def _advances(self, columns: Columns, fresh: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool[n]: whose source stands behind all that were applied before, of the same partition of impressions."""
        advances = np.zeros(len(columns), np.bool_)
        for partition in np.unique(columns.source_partitions[fresh]).tolist():
            of_partition = fresh & (columns.source_partitions == partition)
            for log in dict.fromkeys(columns.source_logs[of_partition].tolist()):
                rows = np.flatnonzero(of_partition & (columns.source_logs == log))
                known = self.source_logs.get(partition, 0)
                if log and known not in (0, log):
                    self.sources.pop(partition, None)  # another log: its offsets start anew
                self.source_logs[partition] = log or known
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
