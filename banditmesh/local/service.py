"""A process that serves gRPC: one of the five services, or a Data Provider."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from banditmesh.local import ports
from banditmesh.local.server import Command, Server

_HEALTH_TIMEOUT_S = 2.0


class Process(Server):
    """A process of the mesh. Ready when its health says SERVING.

    Args:
        name: For messages and the log file.
        folder: Where its ports are remembered.
        logs: Folder of the log files.
        argv: The command, to be run as ``python -m``; ``{address}`` in it becomes the address.
        env: Added to our environment.
        ca: The authority of its certificate, PEM; absent: it speaks plaintext.
        ports_wanted: The gRPC port and the metrics port; absent: free ones.
    """

    n_ports = 2
    stop_grace_s = 20.0

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        logs: Path,
        argv: list[str],
        env: Mapping[str, str],
        ca: Path | None = None,
        ports_wanted: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(folder, ports_wanted=ports_wanted)
        self.name = name
        self._ca = ca
        self._logs, self._argv, self._env = logs, argv, env

    @property
    def log(self) -> Path:
        return self._logs / f"{self.name}.log"

    @property
    def address(self) -> str:
        """``host:port`` of its gRPC server."""
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus scrapes it."""
        return f"http://127.0.0.1:{self.ports[1]}/metrics"

    def _command(self) -> Command:
        env = {
            "BANDITMESH_GRPC_ADDRESS": self.address,
            "BANDITMESH_METRICS_HOST": "127.0.0.1",
            "BANDITMESH_METRICS_PORT": str(self.ports[1]),
            "BANDITMESH_LOG_FORMAT": "json",
            **self._env,
        }
        return Command([sys.executable, "-m", *(part.replace("{address}", self.address) for part in self._argv)], env)

    def _ready(self) -> bool:
        # A server of another mesh may have taken the port after it was seen free, and would answer as well.
        return serving(self.address, self._ca) and ports.held_by(self.ports[0], self.pid)


def serving(address: str, ca: Path | None = None) -> bool:
    """Whether the server at this address says SERVING. ``ca``: the authority of its certificate; None: plaintext."""
    if ca is None:
        channel = grpc.insecure_channel(address)
    else:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()))
    with channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT_S, wait_for_ready=False)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
