from __future__ import annotations

import numpy as np
import pytest

from banditmesh.contracts.events.v1 import events_pb2
from services.learner.packed import packed

RNG = np.random.default_rng(4)
LATER_FIELD = bytes([0x1A, 1, 0x41])  # field 3, length-delimited, "A"


def features(ids: int, values: int) -> events_pb2.Features:
    """So many of each."""
    drawn = RNG.integers(0, 1 << 32, ids, dtype=np.uint64).tolist()
    return events_pb2.Features(ids=drawn, values=RNG.normal(size=values).tolist())


@pytest.mark.parametrize(
    ("ids", "values"),
    [(0, 0), (1, 0), (31, 0), (31, 31), (32, 32), (0, 2), (40, 7), (4095, 4095), (4096, 0), (20_000, 20_000)],
)
@pytest.mark.parametrize("later", [b"", LATER_FIELD], ids=["of today", "of a later schema"])
def test_what_is_packed_is_what_the_message_says(ids: int, values: int, later: bytes) -> None:
    given = events_pb2.Features.FromString(features(ids, values).SerializeToString() + later)
    found_ids, found_values = packed(given)
    assert np.frombuffer(found_ids, "<u4").tolist() == list(given.ids)
    assert np.frombuffer(found_values, "<f4").tolist() == list(given.values)
