"""Kafka: brokers that die, one or all, and one that comes back empty."""

from __future__ import annotations

import shutil

from banditmesh.local.kafka import Kafka
from banditmesh.torture.kafka_cluster import KafkaCluster
from banditmesh.torture.scene import Scene


async def one_of_three(scene: Scene) -> None:
    """Of three brokers one is killed and started again, then the next."""
    cluster = scene.world.kafka
    assert isinstance(cluster, KafkaCluster)
    call = scene.world.supervisor.call
    for at in scene.rng.permutation(len(cluster.brokers)):
        broker = cluster.brokers[at]
        scene.note(f"SIGKILL broker {broker.node} of 3")
        await call(broker.kill)
        await scene.sleep(3.0, 6.0)
        await call(broker.start)
        scene.note(f"broker {broker.node} is back")
        await scene.sleep(3.0)


async def restarted(scene: Scene) -> None:
    """The only broker is killed and started again, twice, then stopped in order and started again."""
    broker = scene.world.kafka
    assert isinstance(broker, Kafka)
    call = scene.world.supervisor.call
    for _ in range(2):
        scene.note("SIGKILL the only broker")
        await call(broker.kill)
        await scene.sleep(1.0, 4.0)
        await call(broker.start)
        scene.note("the broker is back")
        await scene.sleep(4.0)
    scene.note("the broker is stopped in order")
    await call(broker.stop)
    await call(broker.start)
    scene.note("the broker is back")


async def emptied(scene: Scene) -> None:
    """The only broker comes back without its data: everything is lost, and that is said."""
    broker = scene.world.kafka
    assert isinstance(broker, Kafka)
    call = scene.world.supervisor.call
    scene.note("the broker is killed and its data deleted")
    await call(broker.kill)
    await call(lambda: shutil.rmtree(broker.folder / "data"))
    scene.loses_the_log = True
    scene.half_lost = set(scene.traffic.journal.begun)
    scene.declared.append("what stood in the topics is lost: no example of it can be asked for")
    await call(broker.start)
    scene.note("the broker is back, empty")
    await scene.sleep(20.0)
    scene.must_have_said(["tracker", "joiner"], "topics that were there are gone", "Kafka has lost its data")
