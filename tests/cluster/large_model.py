"""Publishes a model of so many MB: run in a pod. Arguments: the placement, MB."""

from __future__ import annotations

import asyncio
import sys
import time

import numpy as np

from banditmesh.bandits.batch import Examples
from banditmesh.bandits.features import SparseRows
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.addresses import S3Address
from banditmesh.runtime.mesh import Mesh, load_mesh
from banditmesh.runtime.settings import UsesStore, load_settings
from banditmesh.runtime.snapshots import Snapshots
from banditmesh.runtime.store import connect
from services.learner.catalog import Catalog
from services.learner.examples import Columns, received
from services.learner.shard import Shard

ROWS, FEATURES = 2048, 64


def some(rng: np.random.Generator, start: int) -> Columns:
    """Examples with features that nobody has seen before."""
    ids = rng.integers(0, 1 << 32, ROWS * FEATURES, np.uint32)
    rows = SparseRows(np.arange(0, ROWS * FEATURES + 1, FEATURES), ids, np.ones(len(ids), np.float32))
    keys, ones = np.arange(ROWS, dtype=np.uint64), np.ones(ROWS, np.float32)
    examples = Examples(
        contents=keys % 50, logics=keys % 2, services=keys % 2, features=rows, rewards=rng.random(ROWS, np.float32),
        propensities=ones, times_s=np.full(ROWS, time.time()), clicked=np.zeros(ROWS, np.bool_),
        names=[("hello", f"c{row}") for row in range(ROWS)],
    )  # fmt: skip
    zero, offsets = np.zeros(ROWS, np.int64), np.arange(start, start + ROWS)
    return Columns(examples, zero, offsets, zero, offsets, zero, [received(events_pb2.Example())] * ROWS)


def large(mesh: Mesh, placement: str, megabytes: float) -> Shard:
    """What a learner has of the placement's linear model when its tensors are so large."""
    ((shard_id, spec),) = (
        (name, spec)
        for name, spec in Catalog(mesh).models.items()
        if name.placement == placement and spec.policy == "linear"
    )
    shard, rng, start = Shard(shard_id, spec, batch=256), np.random.default_rng(0), 0
    while sum(tensor.nbytes for tensor in shard.tensors().values()) < 1e6 * megabytes:
        shard.learn(some(rng, start))
        start += ROWS
        shard.advance({0: start}, 0)
    return shard


async def main(placement: str, megabytes: float) -> None:
    """See the module."""
    shard = large(load_mesh("/etc/banditmesh/mesh.yaml"), placement, megabytes)
    address = load_settings(UsesStore).store
    assert isinstance(address, S3Address)
    store = connect(address)
    try:
        snapshots = Snapshots(store, None)
        await snapshots.publish(
            shard.manifest(int(1000 * time.time())), shard.tensors(), after=await snapshots.pointer(*shard.id)
        )
    finally:
        await store.close()
    print(f"{shard.id}: {sum(tensor.nbytes for tensor in shard.tensors().values())} bytes", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
