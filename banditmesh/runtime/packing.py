"""Packed Redis values: byte layouts that numpy reads without a loop.

All numbers are little-endian. A value starts with a version so that a reader knows whether it belongs to the live
mapping.

=============  =========================================================================================================
candidates     ``u32 version``, then ``n`` x ``u64 content key``, then ``n`` x ``f16 score`` (best first)
profile        ``u32 version``, then JSON: ``{"field": "value" | number | ["several", …]}``
user record    see :mod:`banditmesh.runtime.user_record`
live pointer   ``"<version>:<slot>:<name>"``; version counts up from 1, slot is 0 or 1, name is the caller's
content        ``u16 length`` of the service's name, the name, and a serialised ``provider.v1.Content``; where the
               length's highest bit is set, ``u16 n`` and ``n`` x ``f16``, the content's vector, stand before it
=============  =========================================================================================================
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

VERSION: Final = struct.Struct("<I")
CANDIDATE_BYTES: Final = 10
_LENGTH: Final = struct.Struct("<H")
_HAS_VECTOR: Final = 0x8000

_NO_CANDIDATES: Final = VERSION.pack(0)

Profile = dict[str, str | float | list[str]]


def pack_candidates(version: int, contents: NDArray[np.uint64], scores: NDArray[np.float32] | None = None) -> bytes:
    """Pack the candidates of one user.

    Args:
        version: Of the mapping, from 1.
        contents: ``uint64[n]``, content keys, the best first.
        scores: ``float32[n]``, what the service's logic thinks of them; absent: all 0.
    """
    half = np.zeros(len(contents), "<f2") if scores is None else np.asarray(scores, "<f2")
    return VERSION.pack(version) + np.asarray(contents, "<u8").tobytes() + half.tobytes()


def pack_candidate_rows(
    version: int, offsets: NDArray[np.int64], contents: NDArray[np.uint64], scores: NDArray[np.float16]
) -> list[bytes]:
    """Pack the candidates of many users, each as :func:`pack_candidates` does.

    Args:
        version: Of the mapping, from 1.
        offsets: ``int64[n_users + 1]``; user i owns ``contents[offsets[i]:offsets[i + 1]]``.
        contents: ``uint64[n]``, content keys, the best first.
        scores: ``float16[n]``.
    """
    header = VERSION.pack(version)
    keys, halves = np.asarray(contents, "<u8").tobytes(), np.asarray(scores, "<f2").tobytes()
    bounds = pairwise(offsets.tolist())
    return [header + keys[8 * start : 8 * end] + halves[2 * start : 2 * end] for start, end in bounds]


def candidate_count(value: bytes) -> int:
    """Return how many candidates a packed value holds."""
    return (len(value) - VERSION.size) // CANDIDATE_BYTES


def unpack_candidates(value: bytes) -> tuple[int, NDArray[np.uint64], NDArray[np.float16]]:
    """Return the version, ``uint64[n]`` content keys and ``float16[n]`` scores of a packed value, without a copy."""
    n = candidate_count(value)
    keys = np.frombuffer(value, "<u8", n, VERSION.size)
    scores = np.frombuffer(value, "<f2", n, VERSION.size + 8 * n)
    return VERSION.unpack_from(value)[0], keys, scores


def unpack_candidate_batch(
    values: Sequence[bytes | None], versions: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Unpack many values of candidates at once; what is missing, or of another version than wanted, holds none.

    Args:
        values: ``n`` packed values.
        versions: ``uint32[n]``, the version wanted of each.

    Returns:
        ``int64[n]``, the number of candidates in each value, and ``uint64[sum]``, their content keys one after the
        other.
    """
    present = [value if value is not None and len(value) >= VERSION.size else _NO_CANDIDATES for value in values]
    found = np.frombuffer(b"".join([value[: VERSION.size] for value in present]), "<u4")
    counts = (np.fromiter(map(len, present), np.int64, len(present)) - VERSION.size) // CANDIDATE_BYTES
    counts[found != versions] = 0
    ends = (counts * 8 + VERSION.size).tolist()
    keys = b"".join([value[VERSION.size : end] for value, end in zip(present, ends, strict=True)])
    return counts, np.frombuffer(keys, "<u8")


def unpack_score_batch(values: Sequence[bytes | None], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """``float32[sum]``: the scores of the candidates that :func:`unpack_candidate_batch` found, in the same order.
    ``counts``: ``int64[n]``, as it returned them; a score that is not finite is 0."""
    halves = [
        value[-2 * count :] for value, count in zip(values, counts.tolist(), strict=True) if count and value is not None
    ]
    scores = np.frombuffer(b"".join(halves), "<f2").astype(np.float32)
    return np.nan_to_num(scores, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def pack_profile(version: int, profile: Profile) -> bytes:
    """Pack the profile of one user; keys are sorted so that equal profiles are equal bytes."""
    text = json.dumps(profile, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return VERSION.pack(version) + text.encode()


def unpack_profile(value: bytes) -> tuple[int, Profile]:
    """Return the version and the profile of a packed value."""
    profile: Profile = json.loads(value[VERSION.size :])
    return VERSION.unpack_from(value)[0], profile


def pack_content(service: str, content: bytes, vector: bytes = b"") -> bytes:
    """Pack a content.

    Args:
        service: Its service; a content key is a hash, and this is where the names are found again.
        content: A serialised ``provider.v1.Content``.
        vector: From :func:`pack_vector`; empty: it has none.
    """
    name = service.encode()
    if not vector:
        return _LENGTH.pack(len(name)) + name + content
    return _LENGTH.pack(len(name) | _HAS_VECTOR) + name + _LENGTH.pack(len(vector) // 2) + vector + content


def unpack_content(value: bytes) -> tuple[str, bytes]:
    """Return the service and the serialised ``provider.v1.Content`` of a packed value."""
    service, _, content = unpack_content_and_vector(value)
    return service, content


def unpack_content_and_vector(value: bytes) -> tuple[str, bytes, bytes]:
    """Return the service, the vector as it was packed, and the serialised ``provider.v1.Content`` of a packed value."""
    length = _LENGTH.unpack_from(value)[0]
    end = _LENGTH.size + (length & ~_HAS_VECTOR)
    name, vector = value[_LENGTH.size : end].decode(), b""
    if length & _HAS_VECTOR:
        start = end + _LENGTH.size
        end = start + 2 * int(_LENGTH.unpack_from(value, end)[0])
        vector = value[start:end]
    return name, vector, value[end:]


def pack_vector(vector: NDArray[np.float32]) -> bytes:
    """A content's vector (``float32[n]``) of length 1 as halves; empty for one of zeros, or that is not finite."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return (vector / length).astype("<f2").tobytes() if 0 < length < np.inf else b""


@dataclass(frozen=True)
class LiveVersion:
    """Which version of a source (or of the profiles) readers must use."""

    version: int
    slot: int
    name: str

    def pack(self) -> bytes:
        """Return the pointer's value."""
        return f"{self.version}:{self.slot}:{self.name}".encode()

    @classmethod
    def unpack(cls, value: bytes) -> LiveVersion:
        """Read a pointer's value. Raises ValueError when it is none."""
        version, slot, name = value.decode().split(":", 2)
        return cls.found(int(version), int(slot), name)

    @classmethod
    def found(cls, version: int, slot: int, name: str) -> LiveVersion:
        """The version that somebody has named. Raises ValueError when there can be none such."""
        if not 0 < version < 2**32 or slot not in (0, 1):
            raise ValueError(f"version {version} in slot {slot}: must be 1 to 4294967295 in slot 0 or 1")
        return cls(version, slot, name)
