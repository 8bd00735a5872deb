"""The numbers of repeated fields, out of the bytes that they travel in.

Both fields of `Features` are packed numbers of 32 bits, so what protobuf writes of them *is* an array's memory. To take
30 ids that way costs a quarter of what it costs to ask the message for one after the other.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from banditmesh.contracts.events.v1 import events_pb2

Packed = tuple[bytes, bytes]
"""Of one example: ids, little-endian uint32; values, little-endian float32, empty where each is 1."""

_IDS: Final = 1 << 3 | 2
_VALUES: Final = 2 << 3 | 2
"""Number and wire type of the two fields."""
_TWO_BYTES: Final = 1 << 14
"""Lengths below take two bytes at most."""


def packed(features: events_pb2.Features) -> Packed:
    """The memory of both fields."""
    raw = features.SerializeToString()
    n = len(raw)
    if not n:
        return b"", b""
    if raw[0] == _IDS and n < _TWO_BYTES:
        size, at = raw[1], 2
        if size & 0x80:
            size, at = size & 0x7F | raw[2] << 7, 3
        end = at + size
        if end == n:  # no values: what is usual
            return raw[at:], b""
        if raw[end] == _VALUES:
            more, begin = raw[end + 1], end + 2
            if more & 0x80:
                more, begin = more & 0x7F | raw[end + 2] << 7, end + 3
            if begin + more == n:
                return raw[at:end], raw[begin:]
    # Long ones, values alone, fields of a later schema.
    return np.array(features.ids, "<u4").tobytes(), np.array(features.values, "<f4").tobytes()
