"""Ctrl-C, SIGTERM and a closed terminal end a command in the same way: orderly the first time, at once the second."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_signals(at_once: Callable[[], None]) -> None:
    """Make the first of these signals raise KeyboardInterrupt in the main thread; the second calls ``at_once`` and ends
    the process."""

    def second(number: int, frame: FrameType | None) -> None:
        at_once()
        os._exit(128 + number)

    def first(number: int, frame: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, second)
        raise KeyboardInterrupt

    # Who started us with nohup wants a closed terminal to be ignored.
    taken = [each for each in ENDING if each is not signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN]
    for each in taken:
        signal.signal(each, first)
