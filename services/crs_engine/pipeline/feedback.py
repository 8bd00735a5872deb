"""What users did of late, out of their records, for policies that work a user out at the request."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits.feedback import KINDS, Feedback
from banditmesh.runtime.user_record import CLICKS, MUTES, TARGETS, TASTE, TASTE_BITS, dwell_s
from banditmesh.runtime.user_records import UserRecords

_KIND_OF: Final = {"click": "click", "target": "target", "dwell": "dwell", "mute": "dislike"}
"""By the bit of a record's `taste`, the kind of feedback."""


_DWELL_S: Final = np.array([dwell_s(code) for code in range(256)])


def feedback(records: UserRecords) -> Feedback:
    """The remembered feedback of n users: what they did with each content; of users whose records have no such section
    yet, their clicks, targets and mutes one by one."""
    owners, taste = records.entries(TASTE)
    told = np.zeros(len(records), np.bool_)
    told[owners] = True
    parts: list[tuple[NDArray[np.int64], NDArray[np.uint64], int, NDArray[np.float32]]] = []
    for bit, kind in _KIND_OF.items():
        there = taste["did"] & TASTE_BITS[bit] != 0
        amounts = _DWELL_S.take(taste["dwell"][there]) if kind == "dwell" else np.ones(np.count_nonzero(there))
        parts.append((owners[there], taste["content"][there], KINDS.index(kind), amounts.astype(np.float32)))
    for section, kind in ((CLICKS, "click"), (TARGETS, "target"), (MUTES, "dislike")):
        of, events = records.entries(section)
        there = ~told[of]
        parts.append((of[there], events["content"][there], KINDS.index(kind), np.ones(there.sum(), np.float32)))
    return Feedback.of(
        np.concatenate([each[0] for each in parts]),
        np.concatenate([each[1] for each in parts]).astype(np.uint64),
        np.concatenate([np.full(len(each[0]), each[2]) for each in parts]),
        np.concatenate([each[3] for each in parts]),
        records.count("feedback"),
    )
