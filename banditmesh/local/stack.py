"""The whole mesh on one machine: Kafka, Valkey, an object store and the five services, real processes that talk over
loopback."""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from banditmesh.local import ports
from banditmesh.local.claim import Claim, usable
from banditmesh.local.existing import Existing
from banditmesh.local.kafka import Kafka
from banditmesh.local.process import DidNotStart
from banditmesh.local.running import Startable
from banditmesh.local.s3 import S3
from banditmesh.local.server import Server
from banditmesh.local.service import Process, serving
from banditmesh.local.together import together
from banditmesh.local.valkey import Valkey
from banditmesh.runtime.settings import UsesKafka, UsesRedis, variables_beside

__all__ = ["SERVICES", "Ended", "Existing", "LocalMesh", "Process", "serving"]

SERVICES = ("importer", "crs_engine", "tracker", "joiner", "learner")
# Below the range that the kernel gives to outgoing connections (on Linux from 32768 on): any of those may be taken.
FIRST_PORT = 7051
FIRST_METRICS_PORT = 7091
BUCKET = "banditmesh"
_ENV = {"importer": {"BANDITMESH_IMPORT_LOCAL_FILES": "true"}}
"""What a service has in its environment beside what all have: this machine's files are its user's own."""
_KEPT = ("kafka", "valkey", "s3", "store", "services", "logs", "token-keys", "tls")
"""All that a mesh writes into its folder, but for the lock."""

Progress = Callable[[str, str], None]
"""Called with the name of a part and what it does now, from any thread."""


@dataclass(frozen=True)
class Ended:
    """A part that ended by itself.

    Attributes:
        name: Of the part.
        how: In words, such as ``exit code 1`` or ``SIGKILL``.
        log: Its log file.
        log_end: The last lines there, from before it was started again.
    """

    name: str
    how: str
    log: Path
    log_end: str


@dataclass
class LocalMesh(Startable):
    """The mesh. ``start`` returns when all is healthy; ``stop`` leaves no process behind. Also a context manager.

    Attributes:
        folder: Everything it keeps: data, logs, ports, token keys. No two meshes run on one folder.
        config: The ``mesh.yaml``.
        existing: Servers that are not to be embedded.
        embedded_s3: The store, where none exists already: an S3 server, or a plain folder.
        fixed_ports: The services take ports from 7051 on where those are free; else any free ones.
        fresh: Throw away what an earlier mesh left in the folder.
        tls: The services speak TLS, with certificates of an authority that is made anew at each start.
        env: Added to the services' environment.
        progress: Told what goes on.
    """

    folder: Path
    config: Path
    existing: Existing = field(default_factory=Existing)
    embedded_s3: bool = False
    fixed_ports: bool = False
    fresh: bool = False
    tls: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = lambda part, what: None

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self.services: dict[str, Process] = {}
        self._servers: list[Server] = []
        self._env: dict[str, str] = {}
        self._claim: Claim | None = None
        self._stopping = False

    @property
    def logs(self) -> Path:
        """Folder of the services' logs; an embedded server's log lies in the server's own folder."""
        return self.folder / "logs"

    @property
    def ca(self) -> Path | None:
        """Certificate of the authority that clients must trust; None: the services speak plaintext."""
        return self.folder / "tls" / "ca.pem" if self.tls else None

    @property
    def addresses(self) -> dict[str, str]:
        """``host:port`` of each service."""
        return {name: service.address for name, service in self.services.items()}

    @property
    def settings(self) -> dict[str, str]:
        """The environment that the services were started with."""
        return dict(self._env)

    @property
    def servers(self) -> dict[str, Server]:
        """The embedded servers, by name: kafka, valkey, s3."""
        return {server.name: server for server in self._servers}

    @property
    def moved(self) -> dict[int, Process]:
        """Services that could not have the port that they have by convention, by that port; after ``start``."""
        wanted = {FIRST_PORT + index: self.services[name] for index, name in enumerate(SERVICES)}
        return {port: service for port, service in wanted.items() if self.fixed_ports and service.ports[0] != port}

    def start(self) -> Self:
        """Start everything and wait until it is healthy.

        Raises:
            DidNotStart: Something did not, or another mesh runs on this folder; whatever did is stopped again.
            MeshError: A server that should exist is not there.
        """
        with usable(self.folder):
            self._claim = Claim(self.folder)
        self._stopping = False
        try:
            with usable(self.folder):
                self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        self.existing.check()
        if self.fresh:
            self._throw_away()
        self._env = {
            "BANDITMESH_CONFIG": str(self.config.absolute()),
            "BANDITMESH_TOKEN_KEYS": self._token_keys(),
            **self._certificates(),
            **self._start_servers(),
            **self.env,
        }
        self._start_services()

    def stop(self) -> None:
        """Stop the services, then the servers, each with its deadline; also those that another thread is starting."""
        self._stopping = True
        self._stop_all(self.services.values())
        self._stop_all(self._servers)
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def kill(self) -> None:
        """End everything as a crash would, at once."""
        self._stopping = True
        for server in (*self.services.values(), *self._servers):
            server.kill()

    def restart_ended(self) -> list[Ended]:
        """Start parts again that have ended by themselves, servers first; return which these were. What is killed once
        more while it starts is among those of the next call.

        Raises:
            DidNotStart: One does not start again.
        """
        ended: list[Ended] = []
        for group in (self._servers, self.services.values()):
            again: list[Server] = []
            for server in group:
                code = server.returncode
                if code is not None:
                    again.append(server)
                    ended.append(Ended(server.name, _how(code), server.log, server.log_end()))
                    self.progress(server.name, f"ended ({_how(code)}), starting again")
            self._start_all(again, but_killed=True)
        return ended

    def _throw_away(self) -> None:
        # By name: a mistyped folder may hold something else.
        for path in (self.folder / name for name in _KEPT):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _token_keys(self) -> str:
        """Return the token keys of this folder: made once, so that tokens survive a restart."""
        path = self.folder / "token-keys"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(f"1:{secrets.token_hex(32)}")
        return path.read_text().strip()

    def _certificates(self) -> dict[str, str]:
        """Make an authority and a certificate of this machine; return the settings that name them."""
        if not self.tls:
            return {}
        from banditmesh.local.authority import LOCAL_NAMES, Authority  # cryptography is slow to import

        cert, key = Authority(self.folder / "tls").issue("services", names=LOCAL_NAMES)
        return {"BANDITMESH_TLS_CERT": str(cert), "BANDITMESH_TLS_KEY": str(key)}

    def _start_servers(self) -> dict[str, str]:
        """Start what does not exist yet, together; return the settings that point to it all."""
        kafka = None if self.existing.kafka else Kafka(self.folder / "kafka")
        valkey = None if self.existing.redis else Valkey(self.folder / "valkey")
        s3 = S3(self.folder / "s3") if self.embedded_s3 and not self.existing.store else None
        self._servers = [server for server in (kafka, valkey, s3) if server is not None]
        self._start_all(self._servers)
        env: dict[str, str] = {}
        if s3 is not None:
            s3.create_bucket(BUCKET)
            env |= s3.env
            store = s3.url(BUCKET)
        else:
            store = self.existing.store or (self.folder / "store").as_uri()
        env["BANDITMESH_STORE"] = store
        # How our own servers are spoken to is not how those are that the environment speaks of.
        if kafka is not None:
            env |= dict.fromkeys(variables_beside(UsesKafka, "kafka"), "")
        if valkey is not None:
            env |= dict.fromkeys(variables_beside(UsesRedis, "redis"), "")
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
                env=self._env | _ENV.get(name, {}),
                ca=self.ca,
                ports_wanted=wanted if self.fixed_ports and all(map(ports.is_free, wanted)) else None,
            )
        self._start_all(self.services.values())

    def _start_all(self, servers: Collection[Server], *, but_killed: bool = False) -> None:
        """Start them together. The first that does not start ends it: nobody waits for the others. ``but_killed``: one
        that a signal ends meanwhile does not."""
        for error in together(servers, self._start_one):
            if error is not None and not (but_killed and isinstance(error, DidNotStart) and error.killed):
                raise error

    def _start_one(self, server: Server) -> None:
        began = time.monotonic()
        self.progress(server.name, "starting")
        try:
            self._start_somewhere(server)
        except BaseException:
            if not self._stopping:
                self.progress(server.name, "did not start")
            raise
        if self._stopping:  # it was about to start when the others were stopped
            server.stop()
        self.progress(server.name, f"ready after {time.monotonic() - began:.1f} s")

    def _start_somewhere(self, server: Server) -> None:
        """Start it where it should be; where somebody else was faster, at any port."""
        try:
            server.start()
        except DidNotStart as error:
            if not self.fixed_ports or not isinstance(server, Process) or not error.port_taken:
                raise
            server.forget_ports()
            server.start()

    def _stop_all(self, servers: Iterable[Server]) -> None:
        def stop(server: Server) -> None:
            self.progress(server.name, "stopping")
            server.stop()
            self.progress(server.name, "stopped")

        running = [server for server in servers if server.running]
        for error in list(together(running, stop)):
            if error is not None:
                raise error


def _how(returncode: int) -> str:
    return f"exit code {returncode}" if returncode >= 0 else signal.Signals(-returncode).name
