"""Apache Kafka: one KRaft node (broker and controller in one JVM), as in production but for replication."""

from __future__ import annotations

import math
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from banditmesh.local import cache, jars, java
from banditmesh.local.process import Child, DidNotStart
from banditmesh.local.server import Command, Server

FILES = jars.FILES / "kafka"
LOGGING = f"-Dlog4j2.configurationFile={FILES / 'log4j2.properties'}"
CLUSTER_ID = "YmFuZGl0bWVzaC1sb2NhbA"  # any 16 bytes in base64
NOTHING_TO_FENCE_S = 2.0
METADATA = 3  # the API key of a Metadata request


class Kafka(Server):
    """A broker on 127.0.0.1 that creates no topics by itself; 170 MB.

    It takes 1–2 s to start, 5 s after a kill, and 9 s the first time ever on a machine.

    Args:
        folder: where it keeps its data, configuration and log.
        heap_mb: the JVM's largest heap.
        options: further settings of ``server.properties``, such as ``{"compression.type": "zstd"}``.
    """

    name = "kafka"
    n_ports = 2  # clients, controller
    stop_grace_s = 30.0  # a first broker writes its class archive when it stops: some seconds of CPU

    def __init__(
        self,
        folder: Path,
        *,
        ports_wanted: tuple[int, ...] | None = None,
        heap_mb: int = 256,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, ports_wanted=ports_wanted)
        self._options = dict(options or {})
        self._heap_mb = heap_mb
        self._trained: tuple[Path, Path] | None = (
            None  # where this run's JVM writes the class archive, and where it belongs
        )

    @property
    def bootstrap(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self.ports[0]}"

    def _command(self) -> Command:
        runtime = java.find(self.name)
        libraries = jars.fetch(self.name)
        # Trained on first use: the first broker that ends by itself leaves the archive for all later ones.
        archive = cache.folder() / f"{libraries.name}-java-{runtime.version}.jsa"
        if not (self.folder / "data" / "meta.properties").exists():
            shutil.copytree(self._empty(runtime, libraries), self.folder / "data", dirs_exist_ok=True)
        elif self._was_killed():
            self._fence(runtime, libraries, archive)
        configuration = self._configure("server")
        self._trained = (
            None if archive.exists() else (archive.with_name(f".{archive.name}.{os.getpid()}.{self.ports[0]}"), archive)
        )
        archiving = runtime.archive_flags(archive, train_to=self._trained[0] if self._trained else None)
        flags = [f"-Xmx{self._heap_mb}m", *archiving]
        return Command(_jvm(runtime, libraries, flags, "kafka.Kafka", configuration), env=java.ENVIRONMENT)

    def _empty(self, runtime: java.Java, libraries: Path) -> Path:
        """The data folder that a new broker begins with."""
        return formatted(runtime, libraries)

    def _was_killed(self) -> bool:
        data = self.folder / "data"
        return (data / "__cluster_metadata-0").exists() and not (data / ".kafka_cleanshutdown").exists()

    def _fence(self, runtime: java.Java, libraries: Path, archive: Path) -> None:
        """Have the controller, running alone, declare the broker that was killed dead. 2 s.

        Without this, the new broker first takes up its old partitions, and loses them again when the controller ends
        the old session. If a commit was in flight at the kill, its coordinator finds the partitions without a leader
        just then, takes them for deleted, and notes the commit as complete without its markers: who reads committed
        records waits for ever ("Couldn't find leader endpoint for partitions", Kafka 4.4.0, half of all kills right
        after a commit).
        """
        configuration = self._configure("fencing")
        flags = ["-Xmx64m", *runtime.archive_flags(archive)]
        argv = _jvm(runtime, libraries, flags, "kafka.Kafka", configuration)
        controller = Child("kafka", argv, log=self.folder / "fencing.log", cwd=self.folder, env=java.ENVIRONMENT)
        active_since = math.inf

        def fenced() -> bool:
            nonlocal active_since
            # Not only at the log's end: it goes on with a line for each partition.
            if controller.has_logged("controller activation"):
                active_since = min(active_since, time.monotonic())
            # A broker that was killed before its registration is fenced already, and nothing is said.
            return controller.has_logged("Fencing broker 1") or time.monotonic() - active_since > NOTHING_TO_FENCE_S

        controller.wait_until_ready(fenced, timeout_s=self.start_timeout_s)
        controller.stop(grace_s=self.stop_grace_s)

    def _configure(self, role: str) -> Path:
        """Write the properties file of a role, ``server`` or ``fencing``."""
        configuration = self.folder / f"{role}.properties"
        # Relative to the folder that it runs in: the file is Latin-1, and a comma would part two folders.
        text = _configuration(role, "data", *self.ports[:2])
        if role == "server":
            text += "".join(f"{name}={value}\n" for name, value in self._more().items())
        configuration.write_text(text)
        return Path(configuration.name)

    def _more(self) -> Mapping[str, str]:
        """Settings beside and above those of the template."""
        return self._options

    def _ready(self) -> bool:
        return n_brokers(self.ports[0]) == 1

    def _ended(self, *, orderly: bool) -> None:
        if self._trained is not None:
            written, archive = self._trained
            if orderly and written.exists():
                written.replace(archive)
            written.unlink(missing_ok=True)  # an archive of a run that failed would miss most classes


def n_brokers(port: int) -> int:
    """How many brokers the one on 127.0.0.1 knows to be in service: itself, once it is registered and unfenced.

    A Metadata request, version 1, for no topics, by hand: a client library would bring an event loop and its retries.
    """
    request = struct.pack(">hhihi", METADATA, 1, 0, -1, 0)  # key, version, correlation id, no client id, no topics
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer:
            head = answer.read(12)  # size, correlation id, number of brokers
    return int(struct.unpack(">iii", head)[2]) if len(head) == 12 else 0


def _jvm(runtime: java.Java, libraries: Path, flags: list[str], *program: str | Path) -> list[str | Path]:
    return [runtime.path, *java.SMALL, *flags, LOGGING, "-cp", jars.class_path(libraries), *program]


def _configuration(role: str, data: str, port: int, controller_port: int) -> str:
    template = Template((FILES / f"{role}.properties.template").read_text())
    return template.substitute(DATA=data, PORT=port, CONTROLLER_PORT=controller_port)


def cluster_configuration(data: str, *, advertised: str) -> str:
    """The properties of a broker that others than this machine reach, at ``host:port``."""
    port = advertised.rpartition(":")[2]
    text = _configuration("server", data, int(port), int(port) + 1)
    ours = f"=PLAINTEXT://127.0.0.1:{port}"  # first where it listens, then what it tells clients
    return text.replace(ours, f"=PLAINTEXT://0.0.0.0:{port}", 1).replace(ours, f"=PLAINTEXT://{advertised}")


def formatted(runtime: java.Java, libraries: Path, name: str = "formatted", more: Sequence[str] = ()) -> Path:
    """An empty, formatted data folder to copy: formatting takes a JVM of its own, so it is done once for each ``name``.

    ``more``: further words for the tool.
    """

    def format_(folder: Path) -> None:
        configuration = folder / "server.properties"
        configuration.write_text(_configuration("server", "data", 1, 2))  # its ports are never opened
        tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", configuration.name, *more]
        run = subprocess.run(
            _jvm(runtime, libraries, ["-Xmx64m"], *tool),
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, **java.ENVIRONMENT},
        )
        if run.returncode != 0:
            raise DidNotStart("kafka", f"its data folder could not be formatted:\n{run.stdout}{run.stderr}")

    return cache.once(f"{libraries.name}-{name}", format_) / "data"
