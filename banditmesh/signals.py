"""Ctrl-C, SIGTERM and a closed terminal end a process in the same way: orderly the first time, at once the second, and
never with a traceback.

Imports nothing but the standard library, since it is called before anything else is imported.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALLED = 128
"""Plus the signal's number: the exit code of what a signal has ended, as a shell says it. 130 is Ctrl-C."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end.

    Attributes:
        number: Which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name} came")
        self.number = number

    @property
    def exit_code(self) -> int:
        return SIGNALLED + self.number


def exit_on_signals(code: int | None = None) -> None:
    """Make these signals end the process at once, while it imports and has nothing to put in order.

    A KeyboardInterrupt is no use there: it ends as a traceback, is turned into an ImportError by extension modules, or
    is swallowed, as importlib's callbacks do.

    Args:
        code: The exit code. None: the signal's.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(SIGNALLED + number if code is None else code)

    for each in _heeded():
        signal.signal(each, end)


def interrupt_on_signals(at_once: Callable[[], None]) -> None:
    """Make the first of these signals raise :class:`Interrupted` in the main thread; the second, or one in the middle
    of an import, calls ``at_once`` and ends the process."""

    def second(number: int, frame: FrameType | None) -> None:
        at_once()
        os._exit(SIGNALLED + number)

    def first(number: int, frame: FrameType | None) -> None:
        if _imports(frame):
            second(number, frame)
        for each in taken:
            signal.signal(each, second)
        raise Interrupted(number)

    taken = _heeded()
    for each in taken:
        signal.signal(each, first)


def _heeded() -> list[signal.Signals]:
    """Who started us with nohup wants a closed terminal to be ignored."""
    return [each for each in ENDING if each is not signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN]


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
