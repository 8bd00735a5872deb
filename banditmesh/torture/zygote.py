"""A process that has imported the five services and forks one whenever it is told to.

An interpreter spends more than a second of CPU on importing a service; who kills two hundred of them would measure
little else. What runs is the same code in the same kind of process: ``python -m services.joiner``, from the first line
of its ``__main__`` on.

Protocol: one JSON object a line on stdin, one line on stdout for each. ``{"spawn": …}`` → ``{"pid": …}``;
``{"poll": pid}`` → ``{"returncode": …}``, null while it runs.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import signal
import sys
from typing import Any, Final, NoReturn

SERVICES: Final = ("importer", "crs_engine", "tracker", "joiner", "learner")
_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Serve until stdin ends."""
    for service in SERVICES:
        importlib.import_module(f"services.{service}.bootstrap")
    gc.collect()
    gc.freeze()  # what the collector does not touch is not copied
    ended: dict[int, int] = {}
    answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if "spawn" in request:
            answer({"pid": spawn(request["spawn"])})
        else:
            answer({"returncode": poll(request["poll"], ended)})


def answer(value: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(value), flush=True)


def spawn(order: dict[str, Any]) -> int:
    """Fork a service; returns its process id."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            become(order, parent)
        finally:
            os._exit(70)
    return pid


def become(order: dict[str, Any], parent: int) -> NoReturn:
    """In the child: be the service."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(71)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    random.seed()
    gc.unfreeze()
    signal.signal(signal.SIGUSR2, say_what_it_waits_for)
    code = 1
    try:
        for module, *arguments in order["prepare"]:
            importlib.import_module(module).prepare(*arguments)
        sys.argv = [order["module"]]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def say_what_it_waits_for(number: int, frame: object) -> None:
    """Write where each task of the event loop waits into the log, for whoever wonders why nothing goes on."""
    for task in asyncio.all_tasks(asyncio.get_event_loop_policy().get_event_loop()):
        waits: object = task.get_coro()
        places = []
        while waits is not None:
            at = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
            places.append(f"{at.f_code.co_qualname}:{at.f_lineno}" if at is not None else repr(waits)[:150])
            waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
        print(f"task {task.get_name()}: {' > '.join(places)}", file=sys.stderr)
    sys.stderr.flush()


def poll(pid: int, ended: dict[int, int]) -> int | None:
    """How a child has ended; None: it has not."""
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == 0:
            return None
        ended[pid] = os.waitstatus_to_exitcode(status)
    return ended[pid]


if __name__ == "__main__":
    main()
