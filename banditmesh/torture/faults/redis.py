"""Redis: restarted, emptied, paused, promoted without its newest writes; a Cluster that moves slots and masters."""

from __future__ import annotations

import os
import shutil
import signal
from typing import Final

from redis.crc import key_slot

from banditmesh.local.valkey import Valkey
from banditmesh.torture.redis_shapes import Pair, ReplicatedCluster
from banditmesh.torture.scene import Scene

PAUSED_S: Final = 30.0
_FAIL_OVER_S: Final = 30.0


async def restarted(scene: Scene) -> None:
    """Redis is killed and comes back with its data."""
    node = _one(scene)
    call = scene.world.supervisor.call
    scene.note("SIGKILL redis")
    await call(node.kill)
    await scene.sleep(0.5, 4.0)
    await call(node.start)
    scene.note("redis is back with its data")


async def emptied(scene: Scene) -> None:
    """Redis is killed and comes back empty; mappings are notified again."""
    node = _one(scene)
    call = scene.world.supervisor.call
    scene.note("SIGKILL redis, its data is deleted")
    await call(node.kill)
    await call(lambda: shutil.rmtree(node.folder / "appendonlydir"))
    await call(node.start)
    scene.note("redis is back, empty")
    scene.declared.append(
        "until mappings are notified again users have no candidates: slots are empty or the fallback's"
    )
    await scene.sleep(2.0)
    await scene.world.import_all()
    scene.note("mappings are notified again")
    await scene.sleep(2.0)
    scene.must_have_said(["joiner"], "no progress in Redis", "Redis has lost its data")


async def paused(scene: Scene) -> None:
    """Redis does nothing for thirty seconds and then goes on."""
    node = _one(scene)
    scene.note(f"SIGSTOP redis for {PAUSED_S:g} s")
    os.kill(node.pid, signal.SIGSTOP)
    try:
        await scene.sleep(PAUSED_S)
    finally:
        os.kill(node.pid, signal.SIGCONT)
    scene.note("SIGCONT redis")


async def promoted(scene: Scene) -> None:
    """The primary dies, and a replica without its newest writes takes its place."""
    pair = scene.world.redis
    assert isinstance(pair, Pair)
    call = scene.world.supervisor.call
    scene.note("the replica is cut off")
    await call(pair.cut)
    await scene.sleep(0.5, 3.0)
    scene.note("SIGKILL the primary; the replica is promoted without the newest writes")
    await call(pair.promote)
    await scene.sleep(4.0)
    await call(pair.mend)


async def slot_moved(scene: Scene) -> None:
    """The slots of two join partitions move to other masters, key by key."""
    cluster = _cluster(scene)
    for partition in scene.rng.permutation(4)[:2]:
        slot = key_slot(f"{{p{partition}}}".encode())
        scene.note(f"slot {slot} of join partition {partition} moves")
        _, _, keys = await scene.world.supervisor.call(lambda slot=slot: cluster.move(slot))  # type: ignore[misc]
        scene.note(f"moved, {keys} keys")
        await scene.sleep(1.0, 3.0)


async def master_lost(scene: Scene) -> None:
    """A Cluster's master with join partitions dies, and its replica takes over."""
    cluster = _cluster(scene)
    call = scene.world.supervisor.call
    slot = key_slot(f"{{p{int(scene.rng.integers(4))}}}".encode())
    master, _ = await call(lambda: cluster.master_of(slot))
    scene.note(f"SIGKILL the master of slot {slot}")
    await call(master.kill)
    scene.declared.append("the newest changes of users' records on that node may be missing (docs/decisions/0006)")
    await scene.sleep(8.0, 12.0)
    await call(master.start)
    await call(cluster.wait_until_whole)
    scene.note("the old master is back, as a replica")


def _one(scene: Scene) -> Valkey:
    node = scene.world.redis
    assert isinstance(node, Valkey)
    return node


def _cluster(scene: Scene) -> ReplicatedCluster:
    cluster = scene.world.redis
    assert isinstance(cluster, ReplicatedCluster)
    return cluster
