"""What the mesh has learned, beside what one undisturbed learner learns from the same examples."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from banditmesh.contracts.learner.v1 import learner_pb2, learner_pb2_grpc
from banditmesh.runtime.channels import open_channel
from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.snapshots import Snapshot, Snapshots
from banditmesh.runtime.store import open_store
from banditmesh.torture.evidence import Evidence
from banditmesh.torture.oracle import LEARNED, Finding
from banditmesh.torture.world import World

TOLERANCE: Final = 1e-9
_LOOK_EVERY_S: Final = 0.5
Models = dict[tuple[str, str], Snapshot]


async def compare(world: World, evidence: Evidence, timeout_s: float) -> tuple[list[Finding], dict[str, int]]:
    """Compare counts with the oracle's and sums with those of an undisturbed learner.

    Traffic has ended, and all examples are read. Returns what differs, and how many examples each model has.
    """
    wanted = Counter(found[0].placement for found in evidence.found.values())
    replicas = world.supervisor.of("learner")
    addresses = [replica.process.address for replica in replicas]
    disturbed = await _until_learned(addresses, wanted, str(world.env["BANDITMESH_STORE"]), timeout_s)
    folder = world.folder / "undisturbed"
    folder.mkdir(exist_ok=True)
    lone = world.add(
        "learner",
        0,
        name="undisturbed",
        env={"BANDITMESH_STORE": folder.as_uri(), "BANDITMESH_REPLICAS": "1", "BANDITMESH_ORDINAL": "0"},
    )
    try:
        await world.supervisor.until_ready([lone], timeout_s)
        undisturbed = await _until_learned([lone.process.address], wanted, folder.as_uri(), timeout_s)
    finally:
        await world.supervisor.retire(lone)
    counts = {"/".join(name): each.manifest.examples for name, each in disturbed.items()}
    return list(differences(disturbed, undisturbed, wanted)), counts


def differences(disturbed: Models, undisturbed: Models, wanted: Mapping[str, int]) -> Iterator[Finding]:
    """Every count that is not the oracle's, and every tensor that is further from the undisturbed one than 1e-9."""
    for name, expected in undisturbed.items():
        placement, what = name[0], "/".join(name)
        for who, models in (("mesh", disturbed), ("undisturbed learner", undisturbed)):
            has = models[name].manifest.examples if name in models else 0
            if has != wanted[placement]:
                yield Finding(LEARNED, what, f"the {who} has learned {has} examples of {wanted[placement]}")
        if name in disturbed:
            for tensor, apart in _apart(disturbed[name].tensors, expected.tensors):
                yield Finding(LEARNED, f"{what} {tensor}", f"differs from undisturbed learning by {apart:.3g}")


def _apart(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, float]]:
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right or left[name].shape != right[name].shape:
            yield name, float("inf")
            continue
        one, other = np.asarray(left[name]), np.asarray(right[name])
        if not np.issubdtype(one.dtype, np.floating):
            if not np.array_equal(one, other):
                yield name, float("inf")
            continue
        difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
        allowed = TOLERANCE * np.maximum(1.0, np.abs(other.astype(np.float64)))
        if not bool((difference <= allowed).all()):  # also false for NaN
            yield name, float(difference.max())


async def _until_learned(addresses: list[str], wanted: Mapping[str, int], store: str, timeout_s: float) -> Models:
    """The newest snapshots, once they hold all examples, or as they are when the time is over."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    models: Models = {}
    while True:
        try:
            names = [name for address in addresses for name in await _shards(address)]
            models = await _newest(store, names)
            if names and all(models[name].manifest.examples == wanted[name[0]] for name in names):
                return models
        except (MeshError, grpc.aio.AioRpcError, KeyError):
            pass  # not there yet
        if asyncio.get_running_loop().time() > deadline:
            return models
        await asyncio.sleep(_LOOK_EVERY_S)


async def _shards(address: str) -> list[tuple[str, str]]:
    async with open_channel(address) as channel:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        status = await stub.GetLearnerStatus(learner_pb2.GetLearnerStatusRequest(), timeout=5)
    return [(each.placement, each.model) for each in status.shards]


async def _newest(url: str, names: list[tuple[str, str]]) -> Models:
    store = open_store(url)
    try:
        snapshots, found = Snapshots(store, None), {}
        for name in names:
            pointer = await snapshots.pointer(*name)
            if pointer is not None:
                found[name] = await snapshots.load(*name, pointer.version)
        return found
    finally:
        await store.close()
