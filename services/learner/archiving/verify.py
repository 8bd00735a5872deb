"""Does the archive, learned from again, give a snapshot's tensors byte for byte?

The learner's order is that of the broker times of the examples; the archive's that of the impressions'. As an example
comes after its impression, what an hour's folder says is complete up to the begin of the next folder once both are
read: so rows are sorted hour by hour, and no more than an hour and a join window are in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from banditmesh.archive.layout import HOUR, folder_of, placement_prefix
from banditmesh.archive.reader import read
from banditmesh.archive.state import State, States
from banditmesh.bandits.registry import POLICIES
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime import tensorfile
from banditmesh.runtime.errors import FailedPrecondition
from banditmesh.runtime.snapshots import Manifest, Snapshots
from banditmesh.runtime.store import Store
from services.learner.archiving.rows import ORIGINS, OUTCOMES
from services.learner.catalog import ModelSpec, ShardId
from services.learner.examples import columns, received
from services.learner.merge import BUCKET_MS
from services.learner.shard import Shard

_OUTCOMES: Final = {name: number for number, name in OUTCOMES.items()}
_ORIGINS: Final = {name: number for number, name in ORIGINS.items()}
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Verified:
    """What came of it.

    Attributes:
        placement, model, version: The snapshot.
        since: The version that learning began from; 0: the prior.
        examples: How many the snapshot has learned from since.
        replayed: How many of these the archive gave.
        sha256: Of the snapshot's tensors.
        replayed_sha256: Of those that the archive gives.
    """

    placement: str
    model: str
    version: int
    since: int
    examples: int
    replayed: int
    sha256: str
    replayed_sha256: str

    @property
    def same(self) -> bool:
        """Whether they are the same, byte for byte."""
        return self.sha256 == self.replayed_sha256


async def verify(
    store: Store, placement: str, model: str, version: int, *, batch: int, since: int | None = None, told: Told
) -> Verified:
    """Learn the model again from the archive.

    Args:
        batch: ``learning.batch`` of mesh.yaml.
        since: Begin with this version's tensors; 0: with the prior; None: with the prior where the archive begins with
            the topic, else with the oldest version that the archive goes on from.
        told: Called with how many examples of how many are learned.

    Raises:
        FailedPrecondition: The archive is not that far yet, or has lost some of it.
        BadSnapshot: A snapshot cannot be read.
    """
    snapshots = Snapshots(store, None)
    target = await snapshots.manifest(placement, model, version)
    if target.policy not in POLICIES:
        raise FailedPrecondition(f"{model} is no model of a policy", field="model", value=model)
    if target.rolled_back_to:
        older = await snapshots.manifest(placement, model, target.rolled_back_to)
        return Verified(placement, model, version, target.rolled_back_to, 0, 0, target.sha256, older.sha256)
    states = await States(store, "examples").all()
    _demand_archived(target, states)
    base = await _base(snapshots, target, states) if since is None else since
    shard = Shard(ShardId(placement, model), ModelSpec(target.policy, dict(target.params)), batch=batch)
    begin: Manifest | None = None
    if base:
        snapshot = await snapshots.load(placement, model, base)
        begin = snapshot.manifest
        shard.restore(snapshot)
    before = shard.examples
    # What was learned already is left out by `_wanted`, which knows of logs; what came twice, by the shard.
    shard.offsets = {}
    async for rows in _in_order(store, target, begin):
        for bucket in _buckets(rows):
            shard.learn(
                columns(
                    [
                        (row["example_partition"], row["example_offset"], received(_example(row, placement)))
                        for row in bucket
                    ]
                )
            )
        told(shard.examples - before, target.examples - before)
    body = tensorfile.encode(shard.tensors())
    return Verified(
        placement,
        model,
        version,
        base,
        target.examples - before,
        shard.examples - before,
        target.sha256,
        hashlib.sha256(body).hexdigest(),
    )


def _demand_archived(target: Manifest, states: Mapping[tuple[int, int], State]) -> None:
    for partition, offset in target.offsets.items():
        state = states.get((target.logs.get(partition, 0), partition))
        if state is None or state.next < offset:
            raise FailedPrecondition(
                f"partition {partition} of the archive ends at {0 if state is None else state.next}, the snapshot has "
                f"learned up to {offset}",
                hint="wait for archive.flush_every, or choose an older version",
            )


async def _base(snapshots: Snapshots, target: Manifest, states: Mapping[tuple[int, int], State]) -> int:
    """The version to begin with; 0: the prior. Not before a rollback: what was learned then is no part of it."""
    versions = [each for each in await snapshots.versions(target.placement, target.model) if each < target.version]
    manifests = [await snapshots.manifest(target.placement, target.model, each) for each in versions]
    rollbacks = [each.version for each in manifests if each.rolled_back_to]
    if rollbacks:
        return rollbacks[-1]
    firsts = {partition: states[target.logs.get(partition, 0), partition].first for partition in target.offsets}
    whole = not any(firsts.values())
    for each in manifests if not whole else ():
        if each.logs == target.logs and all(each.offsets.get(partition, 0) >= at for partition, at in firsts.items()):
            return each.version
    return 0


async def _in_order(store: Store, target: Manifest, begin: Manifest | None) -> AsyncIterator[pa.Table]:
    """The rows that the snapshot has learned from, in the learner's order, in tables that end where buckets do."""
    hours = sorted(
        {
            folder.hour
            async for key in store.list(placement_prefix("examples", target.placement))
            if (folder := folder_of(key)) is not None
        }
    )
    waiting: list[pa.RecordBatch] = []
    for hour, following in zip(hours, [*hours[1:], None], strict=True):
        async for batch in read(store, target.placement, hour, hour + HOUR):
            wanted = batch.filter(pa.array(_wanted(batch, target, begin)))
            if len(wanted):
                waiting.append(wanted)
        if not waiting:
            continue
        whole = pa.Table.from_batches(waiting).sort_by(
            [("example_time", "ascending"), ("example_partition", "ascending"), ("example_offset", "ascending")]
        )
        if following is None:
            yield whole
            return
        early = pc.less(whole.column("example_time"), pa.scalar(following, whole.schema.field("example_time").type))
        yield whole.filter(early)
        waiting = whole.filter(pc.invert(early)).to_batches()


def _wanted(batch: pa.RecordBatch, target: Manifest, begin: Manifest | None) -> NDArray[np.bool_]:
    """bool[n]: what the snapshot has learned from, and `begin` not."""
    log, partition, offset = (
        batch.column(name).to_numpy() for name in ("example_log", "example_partition", "example_offset")
    )
    wanted = np.zeros(len(batch), np.bool_)
    for each in np.unique(partition).tolist():
        mine = partition == each
        now = target.logs.get(each, 0)
        if begin is None:
            # All that stands in logs that are no more, and of today's what comes before the end.
            wanted |= mine & ((log != now) | (offset < target.offsets.get(each, 0)))
            continue
        then, at = begin.logs.get(each, 0), begin.offsets.get(each, 0)
        today = mine & (log == now) & (offset < target.offsets.get(each, 0))
        wanted |= today & (offset >= at) if then == now else today | (mine & (log == then) & (offset >= at))
    return wanted


def _buckets(rows: pa.Table) -> Sequence[list[dict[str, Any]]]:
    """The rows in the learner's buckets."""
    found: list[list[dict[str, Any]]] = []
    last = -1
    times_ms = rows.column("example_time").cast(pa.int64()).to_pylist()
    for row, time_ms in zip(rows.to_pylist(), times_ms, strict=True):
        if time_ms // BUCKET_MS != last:
            found.append([])
            last = time_ms // BUCKET_MS
        found[-1].append(row)
    return found


def _example(row: Mapping[str, Any], placement: str) -> events_pb2.Example:
    """The example that a row was made of, as far as anything learns from it."""
    return events_pb2.Example(
        source=events_pb2.Source(
            partition=row["source_partition"], offset=row["source_offset"], log=row["source_log"] or 0
        ),
        joined=events_pb2.JoinedImpression(
            decision=events_pb2.Decision(
                impression_id=row["impression_id"],
                user_id=row["user"],
                placement=placement,
                service=row["service"],
                content_id=row["content"],
                logic=row["logic"],
                position=row["position"],
                variant=row["variant"],
                model=row["model"],
                model_version=row["model_version"],
                propensity=row["propensity"] or 0.0,
                features=events_pb2.Features(ids=row["feature_ids"], values=row["feature_values"] or ()),
                decided_at_ms=_ms(row["decided_at"]),
                origin=_ORIGINS.get(row["origin"], 0),  # type: ignore[arg-type]
            ),
            outcome=_OUTCOMES.get(row["outcome"], 0),  # type: ignore[arg-type]
            target=row["target"] or "",
            reward=row["reward"],
            impression_time_ms=_ms(row["impression_time"]),
            reaction_time_ms=_ms(row["reaction_time"]),
            reactions=[_OUTCOMES.get(each, 0) for each in row["reactions"]],  # type: ignore[misc]
        ),
    )


def _ms(time: Any) -> int:
    return 0 if time is None else round(time.timestamp() * 1000)
