"""Python's collector and glibc's allocator, set for a process that does the same thing over and over: it makes some
thousands of objects and some megabytes of arrays, and lets go of all of them a few milliseconds later."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

GC_OBJECTS: Final = 20_000
"""How many more objects there must be than at the last look for the collector to look at the young ones."""
MAPPED_FROM_BYTES: Final = 4 << 20
"""Smaller arrays come from the heap."""
KEPT_BYTES: Final = 64 << 20
"""So much free memory at the heap's end is kept for the next batch."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def freeze_heap() -> bool:
    """Call once, when what stays for ever is there. Returns whether the allocator took its settings (only glibc has
    them)."""
    # By default, after each 700 objects, the collector took some 15 % of the CPU of the engine and of the joiner, in
    # search of cycles that nobody makes.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)
    # By default the arrays of a batch of 128 go back to the kernel, page by page, and come again for the next batch:
    # half of the time of scoring.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))


def give_back() -> bool:
    """Give the free pages of all heaps, each thread has one of its own, back to the kernel; call it after what comes
    seldom and takes much. Takes some milliseconds. Returns whether the allocator can (only glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)
    return True
