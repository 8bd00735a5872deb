"""The whole mesh on one machine: Kafka, Valkey, an object store and the five services, real processes that talk over
loopback."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from banditmesh.local import ports
from banditmesh.local.kafka import Kafka
from banditmesh.local.s3 import S3
from banditmesh.local.server import Command, Server
from banditmesh.local.valkey import Valkey

SERVICES = ("importer", "crs_engine", "tracker", "joiner", "learner")
FIRST_PORT = 50051
FIRST_METRICS_PORT = 9091
BUCKET = "banditmesh"
_HEALTH_TIMEOUT_S = 2.0

ServerT = TypeVar("ServerT", bound=Server)
Progress = Callable[[str, str], None]
"""Called with the name of a part and what it does now, from any thread."""


class Process(Server):
    """A process of the mesh: one of the five services, or a Data Provider. Ready when its health says SERVING.

    Args:
        name: For messages and the log file.
        folder: Where its ports are remembered.
        logs: Folder of the log files.
        argv: The command without the address.
        env: Added to our environment.
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
        ports_wanted: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(folder, ports_wanted=ports_wanted)
        self.name = name
        self._logs, self._argv, self._env = logs, argv, env

    @property
    def log(self) -> Path:
        return self._logs / f"{self.name}.log"

    @property
    def address(self) -> str:
        """``host:port`` of its gRPC server."""
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def returncode(self) -> int | None:
        """None while it runs or before its first start."""
        return None if self._child is None else self._child.returncode

    def log_end(self) -> str:
        """The last lines of its log since it was started."""
        return "" if self._child is None else self._child.log_end()

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
        return serving(self.address)


def serving(address: str) -> bool:
    """Whether the server at this address says SERVING."""
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT_S, wait_for_ready=False)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass(frozen=True)
class Existing:
    """Servers that are there already and are used instead of embedded ones. Addresses as the services' settings take
    them."""

    kafka: str | None = None
    redis: str | None = None
    store: str | None = None


@dataclass
class LocalMesh:
    """The mesh. ``start`` returns when all is healthy; ``stop`` leaves no process behind. Also a context manager.

    Attributes:
        folder: Everything it keeps: data, logs, ports, token keys.
        config: The ``mesh.yaml``.
        existing: Servers that are not to be embedded.
        embedded_s3: The store, where none exists already: an S3 server, or a plain folder.
        fixed_ports: The services take ports from 50051 on where those are free; else any free ones.
        env: Added to the services' environment.
        progress: Told what goes on.
    """

    folder: Path
    config: Path
    existing: Existing = field(default_factory=Existing)
    embedded_s3: bool = False
    fixed_ports: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = lambda part, what: None

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self.services: dict[str, Process] = {}
        self._servers: list[Server] = []
        self._env: dict[str, str] = {}

    @property
    def logs(self) -> Path:
        """Folder of the services' logs; an embedded server's log lies in the server's own folder."""
        return self.folder / "logs"

    @property
    def addresses(self) -> dict[str, str]:
        """``host:port`` of each service."""
        return {name: service.address for name, service in self.services.items()}

    @property
    def settings(self) -> dict[str, str]:
        """The environment that the services were started with."""
        return dict(self._env)

    def start(self) -> Self:
        """Start everything and wait until it is healthy.

        Raises:
            DidNotStart: Something did not; whatever did is stopped again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._env = {
                "BANDITMESH_CONFIG": str(self.config.absolute()),
                "BANDITMESH_TOKEN_KEYS": self._token_keys(),
                **self._start_servers(),
                **self.env,
            }
            self._start_services()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the services, then the servers, each with its deadline."""
        self._all(filter(_started, self.services.values()), "stopping", Process.stop)
        self._all(filter(_started, self._servers), "stopping", Server.stop)

    def restart_ended(self) -> list[tuple[str, int, str]]:
        """Start services again that have ended by themselves; return name, exit code and the end of the log of each.

        Raises:
            DidNotStart: One does not start again.
        """
        ended = []
        for name, service in self.services.items():
            code = service.returncode
            if code is not None:
                ended.append((name, code, service.log_end()))
                service.start()
        return ended

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _token_keys(self) -> str:
        """Return the token keys of this folder: made once, so that tokens survive a restart."""
        path = self.folder / "token-keys"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(f"1:{secrets.token_hex(32)}")
        return path.read_text().strip()

    def _start_servers(self) -> dict[str, str]:
        """Start what does not exist yet, together; return the settings that point to it all."""
        kafka = None if self.existing.kafka else Kafka(self.folder / "kafka")
        valkey = None if self.existing.redis else Valkey(self.folder / "valkey")
        s3 = S3(self.folder / "s3") if self.embedded_s3 and not self.existing.store else None
        self._servers = [server for server in (kafka, valkey, s3) if server is not None]
        self._all(self._servers, "starting", Server.start)
        env: dict[str, str] = {}
        if s3 is not None:
            s3.create_bucket(BUCKET)
            env |= s3.env
            store = s3.url(BUCKET)
        else:
            store = self.existing.store or f"file://{self.folder / 'store'}"
        env["BANDITMESH_STORE"] = store
        env["BANDITMESH_KAFKA"] = kafka.bootstrap if kafka else str(self.existing.kafka)
        env["BANDITMESH_REDIS"] = valkey.url if valkey else str(self.existing.redis)
        return env

    def _start_services(self) -> None:
        for index, name in enumerate(SERVICES):
            wanted = (FIRST_PORT + index, FIRST_METRICS_PORT + index)
            self.services[name] = Process(
                name,
                self.folder / "services" / name,
                logs=self.logs,
                argv=[f"services.{name}"],
                env=self._env,
                ports_wanted=wanted if self.fixed_ports and all(map(ports.is_free, wanted)) else None,
            )
        self._all(self.services.values(), "starting", Process.start)

    def _all(self, servers: Iterable[ServerT], what: str, act: Callable[[ServerT], object]) -> None:
        """Do something with several servers together; the first error is raised when all have come to an end."""
        servers = list(servers)
        if not servers:
            return

        def one(server: ServerT) -> None:
            self.progress(server.name, what)
            act(server)
            self.progress(server.name, "ready" if what == "starting" else "stopped")

        with ThreadPoolExecutor(len(servers)) as pool:
            errors = [future.exception() for future in as_completed([pool.submit(one, server) for server in servers])]
        for error in errors:
            if error is not None:
                raise error


def _started(server: Server) -> bool:
    return server.running
