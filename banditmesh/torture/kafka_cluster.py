"""Three brokers of one Kafka: topics on all of them, two of which must have a record before it is acknowledged."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final, Self

from banditmesh.local import java, ports
from banditmesh.local.kafka import Kafka, n_brokers
from banditmesh.local.running import Startable
from banditmesh.local.together import together

BROKERS: Final = 3
_TOPIC_SETTINGS: Final = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    # A broker that was killed is found dead within this time, and its partitions get other leaders.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "unclean.leader.election.enable": "false",
}


class Broker(Kafka):
    """One of the three: broker and controller in one JVM."""

    start_timeout_s = 180.0

    def __init__(self, folder: Path, node: int, peers: Collection[tuple[int, tuple[int, ...]]]) -> None:
        """``peers``: node and ports of all, this one among them."""
        voters = ",".join(f"{each}@127.0.0.1:{taken[1]}" for each, taken in peers)
        options = {"node.id": str(node), "controller.quorum.voters": voters, **_TOPIC_SETTINGS}
        super().__init__(folder, ports_wanted=dict(peers)[node], options=options)
        self.node = node
        self.alone = True
        """Whether it is ready when it answers; else only together with another one."""

    def _empty(self, runtime: java.Java, libraries: Path) -> Path:
        """The formatted folder of node 1, with this node's number."""
        formatted = self.folder / "formatted"
        shutil.copytree(super()._empty(runtime, libraries), formatted, dirs_exist_ok=True)
        meta = formatted / "meta.properties"
        lines = [line for line in meta.read_text().splitlines() if not line.startswith("directory.id")]
        meta.write_text("\n".join(f"node.id={self.node}" if "node.id=" in line else line for line in lines) + "\n")
        return formatted

    def _was_killed(self) -> bool:
        return False  # the others have seen it die

    def _ready(self) -> bool:
        return n_brokers(self.ports[0]) >= (1 if self.alone else 2)


class KafkaCluster(Startable):
    """Start and stop all three; kill and start one by itself."""

    def __init__(self, folder: Path) -> None:
        taken = ports.free(2 * BROKERS)
        peers = [(node, taken[2 * node - 2 : 2 * node]) for node in range(1, BROKERS + 1)]
        self.brokers = [Broker(folder / f"broker-{node}", node, peers) for node, _ in peers]
        self.bootstrap = ",".join(f"127.0.0.1:{each[0]}" for _, each in peers)

    def start(self) -> Self:
        """Start them together: one alone finds no quorum."""
        for broker in self.brokers:
            broker.alone = False
        for error in together(self.brokers, lambda broker: broker.start()):
            if error is not None:
                self.stop()
                raise error
        return self

    def kill(self) -> None:
        """End all three at once."""
        for broker in self.brokers:
            broker.kill()

    def stop(self) -> None:
        """Stop them together: the last would wait for a quorum."""
        for error in together(self.brokers, lambda broker: broker.stop()):
            if error is not None:
                raise error
