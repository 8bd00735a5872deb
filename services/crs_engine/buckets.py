"""Counts as categories: buckets that double, so that 3 and 4 differ, and 100 and 101 do not."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.hashing import categorical_id

_BUCKETS: Final = 33


def bucket_name(bucket: int) -> str:
    """``0``, ``1``, ``2-3``, ``4-7``, …: the bucket of numbers with so many binary digits."""
    if bucket < 2:
        return str(bucket)
    return f"{1 << (bucket - 1)}-{(1 << bucket) - 1}"


def buckets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """``int64[n]``: the number of binary digits of each count."""
    return np.frexp(counts.astype(np.float64))[1].astype(np.int64)


@lru_cache
def bucket_ids(field: str) -> NDArray[np.uint32]:
    """``uint32[33]``: the feature id of each bucket of a field."""
    return np.array([categorical_id(field, bucket_name(bucket)) for bucket in range(_BUCKETS)], np.uint32)
