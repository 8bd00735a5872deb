"""Impressions and clicks as a density needs them, out of the records of their topics.

They are read as they come and not out of ``examples``, which wait for a join window: what people read right now is
worth little ten minutes later. What cannot be read is passed over: the joiner makes a dead letter of it.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.stream import Consumed

REMEMBERED: Final = 25_000
"""Of each partition, ids of the newest impressions, by which a second copy is recognised. An app sends again within
seconds. After a restart so many records are read once more, to be remembered and not counted."""


class DensityEvent(NamedTuple):
    """An impression or a click."""

    offset: int
    placement: str
    content: int
    user_vector: bytes
    time_s: float


class Decoder:
    """Reads one of the topics."""

    def __init__(self, which: str) -> None:
        """``which``: clicks or shows."""
        self._clicks = which == "clicks"
        self._seen: defaultdict[int, OrderedDict[bytes, None]] = defaultdict(OrderedDict)

    def events(self, records: Sequence[Consumed]) -> list[DensityEvent]:
        """What counts among records of one partition: of each impression the first one, or its first click."""
        found: list[DensityEvent] = []
        for record in records:
            decision = self._decision(record.value)
            seen = self._seen[record.partition]
            if decision is None or decision.impression_id in seen:
                continue
            seen[decision.impression_id] = None
            if len(seen) > REMEMBERED:
                seen.popitem(last=False)
            found.append(
                DensityEvent(
                    record.offset,
                    decision.placement,
                    content_key(decision.service, decision.content_id),
                    decision.user_vector,
                    record.time_ms / 1000,
                )
            )
        return found

    def _decision(self, value: bytes) -> events_pb2.Decision | None:
        try:
            if not self._clicks:
                return events_pb2.Impression.FromString(value).decision
            reaction = events_pb2.Reaction.FromString(value)
        except DecodeError:
            return None
        return reaction.decision if reaction.WhichOneof("kind") == "click" else None
