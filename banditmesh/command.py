"""The ``banditmesh`` command of every installation: where an extra is missing, it says which one."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

from banditmesh.signals import Interrupted, exit_on_signals, interrupt_on_signals

MISCONFIGURED = 2
EXTRAS = {"cli": ("rich", "typer", "yaml"), "local": ()}
"""An extra, and the packages whose absence it mends; the last one has everything."""


def main() -> None:
    """Run the command line. Exit code 2 with a line about what to install when a package is missing."""
    exit_on_signals()
    if isinstance(sys.stdout, TextIOWrapper):  # a name or a sign that the terminal cannot show is no reason to end
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from banditmesh.cli.commands import main as run

        try:
            interrupt_on_signals(lambda: None)
            run()
        except SystemExit as ended:
            if isinstance(ended.code, int) and ended.code and _threads_are_left():
                with suppress(OSError, ValueError):  # whoever read it has gone
                    sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ended.code)
            raise
        finally:
            exit_on_signals()
    except Interrupted as interrupted:  # before the command has begun, or when it has ended
        sys.exit(interrupted.exit_code)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("banditmesh", "services"):
            raise
        extra = next(extra for extra, packages in EXTRAS.items() if package in packages or not packages)
        needs = f"this command needs the package {package!r}; install it with: pip install 'banditmesh[{extra}]'"
        print(f"banditmesh: {needs}", file=sys.stderr)
        sys.exit(MISCONFIGURED)


def _threads_are_left() -> bool:
    """Whether Python would wait for a thread before it ends. After a failure all is said and put in order; such a one
    may wait for a store that hangs."""
    import threading  # only now: what is imported before signals are heeded is a moment in which Ctrl-C is a traceback

    return any(not each.daemon for each in threading.enumerate() if each is not threading.main_thread())
