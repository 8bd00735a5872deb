"""A Valkey Sentinel, from the same server binary."""

from __future__ import annotations

from pathlib import Path

from banditmesh.local.server import Command
from banditmesh.local.valkey import Valkey


class Sentinel(Valkey):
    """Watches one primary under a name, and promotes a replica when it is away for half a second.

    Args:
        folder: where it keeps what it knows.
        primary_port: of 127.0.0.1.
        service: the name.
    """

    name = "sentinel"

    def __init__(self, folder: Path, primary_port: int, service: str = "mymaster") -> None:
        super().__init__(folder)
        self._primary_port, self._service = primary_port, service

    def _command(self) -> Command:
        configuration = self.folder / "sentinel.conf"
        service = self._service
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\n"
            f"sentinel monitor {service} 127.0.0.1 {self._primary_port} 1\n"
            f"sentinel down-after-milliseconds {service} 500\n"
            f"sentinel failover-timeout {service} 2000\n"
        )
        server, *_ = super()._command().argv
        return Command([server, configuration, "--sentinel"])
