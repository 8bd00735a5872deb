"""Child processes that log to a file, are waited for by asking them, and never outlive us."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
POLL_S = 0.05
TAIL_LINES = 25
TAIL_BYTES = 64 * 1024

# Linux ends a leashed child with the thread that started it. So one thread, which lives as long as the process, starts
# them all; a caller's own thread (say, of asyncio.to_thread) may end at any time.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starts-children")


class DidNotStart(Exception):
    """A server did not become ready.

    Attributes:
        server: its name, such as ``kafka``.
        reason: what was seen.
        log: its log file, None when it never got to the point of writing one.
        log_end: the last lines that this start wrote there, joined with newlines.
        killed: a signal that was not ours has ended it, so it may well start the next time.
    """

    def __init__(
        self, server: str, reason: str, *, log: Path | None = None, log_end: str = "", killed: bool = False
    ) -> None:
        self.server, self.reason, self.log, self.log_end, self.killed = server, reason, log, log_end, killed
        text = f"{server} did not start: {reason}"
        if log is not None:
            shown = "\n".join(f"  | {line}" for line in log_end.splitlines()) or "  | (nothing was logged)"
            text += f"\nThe end of {log}:\n{shown}"
        super().__init__(text)

    @property
    def port_taken(self) -> bool:
        """Whether somebody else holds one of its ports: libc, Go, Java and our own check say it in the same words, our
        services in others."""
        said = f"{self.reason}\n{self.log_end}".lower()
        return "address already in use" in said or "the port is taken" in said


class Child:
    """One running child process.

    It has a process group of its own: a Ctrl-C at the terminal reaches only us, and we decide the order of stopping.

    Args:
        name: for error messages.
        argv: the command.
        log: where its stdout and stderr are appended.
        cwd: its working directory.
        env: added to our own environment.

    Attributes:
        least_room: bytes that must be free where it logs; with less, a start that fails is the full disk's.
    """

    least_room = 1 << 20

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_begin = log.stat().st_size if log.exists() else 0
        leashed = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *map(str, argv)]
        with log.open("ab") as output:
            self._popen = _starter.submit(
                subprocess.Popen,
                leashed,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                process_group=0,
            ).result()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; the negative signal number if a signal ended it."""
        return self._popen.poll()

    def log_end(self, lines: int = TAIL_LINES) -> str:
        """The last lines that this child has logged."""
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_begin, size - TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def has_logged(self, words: str) -> bool:
        """Whether these words stand anywhere in what this child has logged."""
        with self.log.open("rb") as log:
            log.seek(self._log_begin)
            return words.encode() in log.read()

    def wait_until_ready(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Ask ``ready`` until it says yes; an OSError from it (connection refused, say) means not yet.

        Raises:
            DidNotStart: it exited, or was not ready in time. It runs no more.
        """
        try:
            self._wait(ready, timeout_s)
        except BaseException:  # also Ctrl-C: a child that nobody waits for must not stay
            self.kill()
            raise

    def _wait(self, ready: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._says(ready):
            if self.returncode is not None:
                raise self._did_not_start(self._how_it_ended(), killed=self.returncode < 0)
            if time.monotonic() > deadline:
                raise self._did_not_start(f"it was not ready within {timeout_s:g} s")
            time.sleep(POLL_S)

    def _did_not_start(self, reason: str, *, killed: bool = False) -> DidNotStart:
        """What it has logged says why, unless there was no room for that either."""
        disk = os.statvfs(self.log.parent)
        room = disk.f_bavail * disk.f_frsize
        if room < self.least_room:
            reason += f"; {os.strerror(errno.ENOSPC)}: {room} bytes are free under {self.log.parent}"
        return DidNotStart(self.name, reason, log=self.log, log_end=self.log_end(), killed=killed)

    def _says(self, ready: Callable[[], bool]) -> bool:
        """Its answer; False also if it ended, as somebody else may have answered."""
        try:
            return ready() and self.returncode is None
        except OSError:
            return False

    def stop(self, *, grace_s: float) -> int:
        """Ask it to end (SIGTERM), and kill what has not ended after ``grace_s``; answers the return code."""
        self._signal(signal.SIGTERM)
        try:
            return self._popen.wait(grace_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it and its process group at once (SIGKILL); answers the return code."""
        self._signal(signal.SIGKILL)
        return self._popen.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.returncode is None:  # else its pid may be somebody else's by now
            # While another thread waits for its end, Popen does not know of it.
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _how_it_ended(self) -> str:
        code = self._popen.returncode
        return f"it exited with code {code}" if code >= 0 else f"{signal.Signals(-code).name} ended it"
