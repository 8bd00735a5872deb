"""A wall clock that is wrong: what a process sees whose machine's clock was set to another time."""

from __future__ import annotations

import time


def prepare(offset_s: str) -> None:
    """Move this process's wall clock by so many seconds; its steady clock goes on as it did."""
    right, offset = time.time, float(offset_s)
    right_ns = time.time_ns
    time.time = lambda: right() + offset
    time.time_ns = lambda: right_ns() + round(offset * 1e9)
