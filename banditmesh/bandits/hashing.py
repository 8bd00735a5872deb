"""Stable 64-bit keys and 32-bit feature ids: the same on every machine, in every process, for ever.

Keys stand in models, in Redis and in logs. Changing any function here makes all of those unreadable; the golden
values in the tests are there to stop that.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

CROSSED = np.uint32(1 << 31)
"""The bit that tells the id of a cross from that of a feature as it was given."""
_MASK_31 = 0x7FFFFFFF


LONGEST_REMEMBERED: Final = 64
"""Characters of a text whose hash is remembered. With a bound on texts and on their number the memory has one too;
longer texts are worked out each time, a microsecond."""


def key64(text: str) -> int:
    """The first 8 bytes, little-endian, of BLAKE2b (digest_size=8) over the UTF-8 of `text`, in [0, 2^64)."""
    return _remembered(text) if len(text) <= LONGEST_REMEMBERED else _key64(text)


def _key64(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


_remembered = lru_cache(maxsize=1 << 17)(_key64)


def content_key(service: str, content_id: str) -> int:
    """The key of one content of one service."""
    return key64(f"{service}/{content_id}")


def logic_key(service: str, logic: str) -> int:
    """The key of one recommendation logic of one service."""
    return key64(f"{service}/{logic}")


def service_key(service: str) -> int:
    """The key of a service."""
    return key64(service)


def categorical_id(field: str, value: str) -> int:
    """The feature id (uint32 below 2^31) of a categorical field with this value."""
    return key64(f"{field}={value}") & _MASK_31


def numeric_id(field: str) -> int:
    """The feature id (uint32 below 2^31) of a numeric field; its value travels beside the id."""
    return key64(field) & _MASK_31


def mix64(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele, Lea, Flood 2014, with Stafford's Mix13 constants): a bijection of uint64.

    Every input bit changes every output bit with probability of about one half.
    """
    z = keys ^ (keys >> np.uint64(30))
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def mix32(ids: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's 32-bit finalizer (`fmix32`, Appleby 2011): a bijection of uint32."""
    h = ids ^ (ids >> np.uint32(16))
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h


def cross(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The ids of the crosses of two features, element by element (broadcasting), without any string.

    The two ids are laid side by side in 64 bits (left high), moved by the golden ratio so that (0, 0) is not a fixed
    point, mixed by `mix64`, and the high half is taken, with `CROSSED` set. Ordered: cross(a, b) is not cross(b, a).
    """
    pair = (np.asarray(left, np.uint64) << np.uint64(32)) | np.asarray(right, np.uint64)
    pair += np.uint64(0x9E3779B97F4A7C15)
    return (mix64(pair) >> np.uint64(32)).astype(np.uint32) | CROSSED


def uniform(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Maps keys that are already hashed to [0, 1): their top 53 bits as a fraction, so that 1.0 is never reached."""
    return (np.asarray(keys, np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(ids: NDArray[np.uint32], width: int, seed: int) -> NDArray[np.float32]:
    """float32[n, width]: standard normal numbers that are a function of id, column and seed alone (Box and Muller).

    So what a feature starts from does not depend on when it appeared, or beside which others.
    """
    columns = np.arange(width, dtype=np.uint64) + (np.uint64(seed) << np.uint64(16))
    first = mix64((ids.astype(np.uint64)[:, None] << np.uint64(32)) + columns + np.uint64(0x9E3779B97F4A7C15))
    radius = np.sqrt(-2.0 * np.log1p(-uniform(first)))
    return (radius * np.cos(2.0 * np.pi * uniform(mix64(first + np.uint64(0x9E3779B97F4A7C15))))).astype(np.float32)
