"""The ``banditmesh`` command as a user runs it: a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.eventually import eventually_true

ROOT = Path(__file__).parents[2]
HEALTHY = "All is healthy"
START_WITHIN_S = 90.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without settings of a mesh that runs elsewhere, and with a width at which rich breaks no line."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("BANDITMESH_")}
    cache = {name: os.environ[name] for name in ("BANDITMESH_CACHE",) if name in os.environ}
    return {**ours, **cache, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(extra or {})}


def banditmesh(
    *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    argv = [sys.executable, "-m", "banditmesh.cli", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, env=environment(env), cwd=cwd)


class Up:
    """A ``banditmesh up`` that runs.

    Args:
        folder: Its ``--dir``.
        words: Further words of the command line.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        self.output = folder.with_suffix(".out")
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "banditmesh.cli", "up", "--dir", str(folder), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                cwd=ROOT,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def children(self) -> dict[str, int]:
        """Process ids of its servers and services, by what tells them apart in their command line."""
        found = {}
        for pid in _children(self._process.pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            names = ("kafka.Kafka", "valkey-server", "weed", *(f"services.{name}" for name in _SERVICES))
            found |= {name: pid for name in names if name in command}
        return found

    def wait_until(self, text: str, *, times: int = 1, within_s: float = START_WITHIN_S) -> None:
        """Wait until it says so; fails when it ends instead."""

        def seen() -> bool:
            assert self._process.poll() is None or self.said.count(text) >= times, self.said
            return self.said.count(text) >= times

        try:
            eventually_true(seen, within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"no {text!r} in:\n{self.said}") from error

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self._process.wait(60)


@contextmanager
def running_up(folder: Path, *words: str) -> Iterator[Up]:
    """``banditmesh up``, as yet starting; killed in the end, if need be."""
    up = Up(folder, *words)
    try:
        yield up
    finally:
        up.send(signal.SIGKILL)
        up.wait()


def alive(pids: Mapping[str, int]) -> list[str]:
    """Those that still run."""
    return [name for name, pid in pids.items() if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


_SERVICES = ("importer", "crs_engine", "tracker", "joiner", "learner")
