"""The shapes of Redis that are tortured: one node, a primary with a replica behind a name that moves, a Cluster with a
replica for each master."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import redis

from banditmesh.local.running import Startable
from banditmesh.local.valkey import ClusterNode, Valkey, ValkeyCluster
from banditmesh.torture.network import FaultyLink, Network

_AT_ONCE: Final = {"repl-diskless-sync-delay": "0"}
"""Do not wait five seconds for other replicas that may come."""


class Pair(Startable):
    """A primary and its replica; services know the name alone, as they do of a managed Redis."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.primary = Valkey(folder / "a", options=_AT_ONCE)
        self.replica = Valkey(folder / "b", options=_AT_ONCE)
        self._network = network
        self.name: FaultyLink | None = None

    @property
    def url(self) -> str:
        """Where the name leads."""
        assert self.name is not None
        return f"redis://127.0.0.1:{self.name.port}"

    def start(self) -> Self:
        """Start both, the replica in step."""
        self.primary.start()
        self.replica.start()
        self.follow()
        self.name = self._network.link(self.primary.port)
        return self

    def follow(self) -> None:
        """Let the replica follow the primary, and wait until it does."""
        self.replica.command("REPLICAOF", "127.0.0.1", self.primary.port)
        self.replica.wait_until(self._in_step, timeout_s=30.0)

    def _in_step(self) -> bool:
        return "master_link_status:up" in self.replica.command("INFO replication")

    def cut(self) -> None:
        """The replica hears of nothing any more."""
        self.replica.command("REPLICAOF", "127.0.0.1", 1)

    def promote(self) -> None:
        """The primary dies, and the name leads to the replica. What it did not hear of is lost."""
        assert self.name is not None
        self.primary.kill()
        self.replica.command("REPLICAOF", "NO", "ONE")
        self.primary, self.replica = self.replica, self.primary
        self.name.target_port = self.primary.port

    def mend(self) -> None:
        """What was the primary comes back as a replica."""
        self.replica.start()
        self.follow()

    def kill(self) -> None:
        """End both at once."""
        self.primary.kill()
        self.replica.kill()

    def stop(self) -> None:
        """Stop both."""
        self.primary.stop()
        self.replica.stop()


class ReplicatedCluster(ValkeyCluster):
    """Three masters, each with a replica that takes over within some seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.replicas = tuple(ClusterNode(folder / f"replica-{i}", options=_AT_ONCE) for i in range(self.n_nodes))

    @property
    def everybody(self) -> tuple[Valkey, ...]:
        """Masters and replicas, whatever their roles are by now."""
        return (*self.nodes, *self.replicas)

    @property
    def url(self) -> str:
        """All of them: a client must find the others while one is away."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.everybody)

    def start(self) -> Self:
        """Start the masters, then give each its replica."""
        super().start()
        for master in self.nodes:
            master.command("CONFIG SET", *next(iter(_AT_ONCE.items())))
        for replica in self.replicas:
            replica.start()
            replica.command("CLUSTER MEET", "127.0.0.1", *self.nodes[0].ports)
        for master, replica in zip(self.nodes, self.replicas, strict=True):
            identity = master.command("CLUSTER MYID")
            replica.wait_until(lambda replica=replica, identity=identity: _follows(replica, identity), timeout_s=30.0)  # type: ignore[misc]
        return self

    def kill(self) -> None:
        """End all at once."""
        for node in self.everybody:
            node.kill()

    def stop(self) -> None:
        """Stop all."""
        for node in self.replicas:
            node.stop()
        super().stop()

    def masters(self) -> Iterator[tuple[Valkey, str, range]]:
        """The masters by the word of one that runs: node, id, its widest range of slots."""
        asked = next(node for node in self.everybody if node.running)
        for slots in self.client(asked).execute_command("CLUSTER", "SLOTS"):
            first, last, (_, port, identity, *_), *_ = slots
            node = next(node for node in self.everybody if node.port == int(port))
            yield node, identity.decode() if isinstance(identity, bytes) else str(identity), range(first, last + 1)

    def master_of(self, slot: int) -> tuple[Valkey, str]:
        """The node that serves a slot, and its id."""
        return next((node, identity) for node, identity, slots in self.masters() if slot in slots)

    def move(self, slot: int) -> tuple[Valkey, Valkey, int]:
        """Move a slot to another master as a resharding does, key by key; from, to, and how many keys."""
        source, source_id = self.master_of(slot)
        sink, sink_id = next((node, identity) for node, identity, _ in self.masters() if node is not source)
        at_source, at_sink = self.client(source), self.client(sink)
        at_sink.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        at_source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", sink_id)
        moved = 0
        while keys := at_source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 20):
            at_source.execute_command("MIGRATE", "127.0.0.1", sink.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
        for client in (at_sink, at_source):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", sink_id)
        return source, sink, moved

    @staticmethod
    def client(node: Valkey) -> Any:
        """A client of one node, whose answers are bytes."""
        return redis.Redis(port=node.port, socket_timeout=10)


def _follows(replica: Valkey, master: str) -> bool:
    """Whether it follows; it is told to once it has heard of the master."""
    said = replica.command("INFO replication")
    if "role:slave" not in said:
        replica.command("CLUSTER REPLICATE", master)
    return "master_link_status:up" in said
