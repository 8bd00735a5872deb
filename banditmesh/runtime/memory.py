"""Python's collector and glibc's allocator, set for a process that does the same thing over and over: it makes some
thousands of objects and some megabytes of arrays, and lets go of all of them a few milliseconds later."""

from __future__ import annotations

import gc
import os
from typing import Any, Final

GC_OBJECTS: Final = 20_000
"""How many more objects there must be than at the last look for the collector to look at the young ones."""
MAPPED_FROM_BYTES: Final = 4 << 20
"""Smaller arrays come from the heap."""
KEPT_BYTES: Final = 64 << 20
"""So much free memory at the heap's end is kept for the next batch."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def freeze_heap() -> bool:
    """Call it when what stays is there, and again when a service that serves has been built anew. Returns whether the
    allocator took its settings (only glibc has them)."""
    # By default, after each 700 objects, the collector took some 15 % of the CPU of the engine and of the joiner, in
    # search of cycles that nobody makes.
    if gc.get_threshold()[0] != GC_OBJECTS:
        gc.collect()
    else:  # it serves: to look at all that is new would be a second with thousands of placements, and none may be lost
        gc.collect(1)
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)
    # By default the arrays of a batch of 128 go back to the kernel, page by page, and come again for the next batch:
    # half of the time of scoring.
    mallopt = _of_libc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))


def arrow_as_glibc() -> None:
    """Let pyarrow take its memory from glibc; call it before anything imports pyarrow, which looks at it once.

    Its own allocator, mimalloc, keeps up to 100 MB of what rows have taken that are long gone, while its pool holds
    nothing (pyarrow 26.0; benchmarks/steady.md). glibc can be told to :func:`give_back`. Who starts the process may say
    otherwise: ``ARROW_DEFAULT_MEMORY_POOL``.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def give_back() -> bool:
    """Give the free pages of all heaps, each thread has one of its own, back to the kernel; call it after what comes
    seldom and takes much. Takes some milliseconds. Returns whether the allocator can (only glibc)."""
    trim = _of_libc("malloc_trim")
    if trim is None:
        return False
    trim(0)
    return True


def _of_libc(name: str) -> Any:
    """A function of the C library; None where it has none of this name."""
    import ctypes  # only now: services import this module before they heed signals, and a moment should do for that

    return getattr(ctypes.CDLL(None), name, None)
