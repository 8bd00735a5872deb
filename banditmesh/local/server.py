"""What the local servers have in common: a folder with all they keep, ports, and start / stop / kill / start again."""

from __future__ import annotations

import json
import signal
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from banditmesh.local import ports
from banditmesh.local.process import Child, DidNotStart
from banditmesh.local.running import Startable


@dataclass(frozen=True)
class Command:
    """How a server is run; the working directory is its folder."""

    argv: list[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)


class Server(Startable):
    """A server process that keeps its configuration, data and log in one folder.

    ``start`` returns when the server answers. ``kill`` is SIGKILL; a ``start`` after it finds the data and the ports as
    they were. As a context manager it starts on entry and stops on exit.

    Without ``ports_wanted`` it takes free ones, tries others if somebody else is faster, and notes them in the folder,
    so that a later server on the same folder has the same address if it can. All methods block, and may be called from
    any thread.
    """

    name: str
    n_ports: ClassVar[int]
    start_timeout_s: ClassVar[float] = 60.0
    stop_grace_s: ClassVar[float] = 10.0
    attempts: ClassVar[int] = 3

    def __init__(self, folder: Path, *, ports_wanted: tuple[int, ...] | None = None) -> None:
        if ports_wanted is not None and len(ports_wanted) != self.n_ports:
            raise ValueError(f"{self.name} needs {self.n_ports} ports, not {len(ports_wanted)}")
        self.folder = folder.absolute()
        self._ports = ports_wanted
        self._child: Child | None = None

    @abstractmethod
    def _command(self) -> Command:
        """Write the configuration into the folder; called before every start, when the ports are known."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether it does what it is for; an OSError means not yet."""

    @property
    def ports(self) -> tuple[int, ...]:
        if self._ports is None:
            raise RuntimeError(f"{self.name} has no ports before its first start")
        return self._ports

    def forget_ports(self) -> None:
        """Take free ones with the next start."""
        self._ports = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    @property
    def returncode(self) -> int | None:
        """None while it runs or before its first start; the negative signal number if a signal ended it."""
        return None if self._child is None else self._child.returncode

    def log_end(self) -> str:
        """The last lines of its log since it was started."""
        return "" if self._child is None else self._child.log_end()

    @property
    def pid(self) -> int:
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child.pid

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            DidNotStart: it ended or did not answer in time; a part that it needs is missing; a port that was asked for
                is taken.
        """
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._ports is not None:
            self._start_once()
            return self
        remembered = self._remembered_ports()
        for attempt in range(1, self.attempts + 1):
            self._ports = remembered or ports.free(self.n_ports)
            try:
                self._start_once()
                break
            except DidNotStart as error:
                self._ports = remembered = None
                if attempt == self.attempts or not error.port_taken:
                    raise
        self._ports_file.write_text(json.dumps(self._ports))
        return self

    def stop(self) -> None:
        """Let it end by itself, with a deadline. Nothing happens if it does not run."""
        if self.running and self._child is not None:
            code = self._child.stop(grace_s=self.stop_grace_s)
            self._ended(orderly=code != -signal.SIGKILL)

    def kill(self) -> None:
        """End it as a crash would. Nothing happens if it does not run."""
        if self.running and self._child is not None:
            self._child.kill()
            self._ended(orderly=False)

    def wait_until(self, state: Callable[[], bool], *, timeout_s: float) -> None:
        """Ask ``state`` until it says yes; see :meth:`banditmesh.local.process.Child.wait_until_ready`."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        self._child.wait_until_ready(state, timeout_s=timeout_s)

    def _start_once(self) -> None:
        # Asked before, because a server of the same kind on that port would answer our question whether ours is ready.
        for port in self.ports:
            if not ports.is_free(port):
                raise DidNotStart(self.name, f"address already in use: 127.0.0.1:{port}")
        child = self._spawn(self._command())
        self._child = child  # from here on another thread may stop it, which ends this start too
        try:
            child.wait_until_ready(self._ready, timeout_s=self.start_timeout_s)
        except BaseException:
            self._ended(orderly=False)
            raise
        self._started()

    def _spawn(self, command: Command) -> Child:
        """Make the process."""
        return Child(self.name, command.argv, log=self.log, cwd=self.folder, env=command.env)

    def _started(self) -> None:
        """Called when it has become ready."""

    def _ended(self, *, orderly: bool) -> None:
        """Called when we have ended it (``orderly``: without SIGKILL), to clear what it left outside of its folder."""

    @property
    def _ports_file(self) -> Path:
        return self.folder / "ports.json"

    def _remembered_ports(self) -> tuple[int, ...] | None:
        if not self._ports_file.exists():
            return None
        remembered = tuple(json.loads(self._ports_file.read_text()))
        return remembered if all(ports.is_free(port) for port in remembered) else None
