"""Services that the zygote (:mod:`banditmesh.torture.zygote`) forks, otherwise treated as any other child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from banditmesh.local.process import LEASH, Child
from banditmesh.local.running import Startable
from banditmesh.local.server import Command
from banditmesh.local.service import Process

_POLL_S: Final = 0.02
Prepare = Sequence[Sequence[str]]
"""Modules, each with arguments, whose ``prepare`` is called in the child before the service is run."""


class Zygote(Startable):
    """The process that forks. Must be started by a thread that lives as long as the forked ones shall."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._asking = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Start it and wait until all is imported."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        argv = [
            sys.executable,
            "-I",
            "-S",
            str(LEASH),
            str(os.getpid()),
            sys.executable,
            "-m",
            "banditmesh.torture.zygote",
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, process_group=0
            )
        self._answer()
        return self

    def stop(self) -> None:
        """End it, and with it whatever it has forked."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request, one answer."""
        with self._asking:
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the zygote has ended; see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class _Forked:
    """What :class:`Child` needs of a ``Popen``."""

    def __init__(self, zygote: Zygote, order: Mapping[str, Any]) -> None:
        self._zygote = zygote
        self.pid: int = zygote.ask({"spawn": order})["pid"]
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._zygote.ask({"poll": self.pid})["returncode"]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("forked", timeout or 0.0)
            time.sleep(_POLL_S)
        return code


class ForkedChild(Child):
    """A child that the zygote has forked."""

    def __init__(
        self,
        zygote: Zygote,
        name: str,
        module: str,
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str],
        prepare: Prepare,
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_begin = log.stat().st_size if log.exists() else 0
        order = {
            "module": module,
            "log": str(log),
            "cwd": str(cwd),
            "env": dict(env),
            "prepare": [list(each) for each in prepare],
        }
        self._popen = _Forked(zygote, order)  # type: ignore[assignment] # as much of it as is used


class ForkedProcess(Process):
    """A process of the mesh, forked."""

    def __init__(
        self,
        zygote: Zygote,
        name: str,
        module: str,
        folder: Path,
        *,
        logs: Path,
        env: Mapping[str, str],
        prepare: Prepare = (),
    ) -> None:
        super().__init__(name, folder, logs=logs, argv=[module], env=env)
        self._zygote, self._module = zygote, module
        self.prepare = prepare
        """Taken with the next start."""

    def ask_what_it_waits_for(self) -> None:
        """Let it write where each of its tasks waits into its log."""
        if self.running:
            os.kill(self.pid, signal.SIGUSR2)

    def _spawn(self, command: Command) -> Child:
        return ForkedChild(
            self._zygote,
            self.name,
            self._module,
            log=self.log,
            cwd=self.folder,
            env=command.env,
            prepare=self.prepare,
        )
