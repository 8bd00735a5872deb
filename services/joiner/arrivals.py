"""Reactions as they arrive: which of them are new, and which are too late. Plain functions over what Redis knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from banditmesh.bandits.hashing import content_key, key64, service_key
from banditmesh.runtime.user_record import CLICKS, MUTES, TARGETS, Position, Section, UserRecord
from services.joiner.events import Reaction
from services.joiner.ledger import Kept, Seen, Store


@dataclass(frozen=True, slots=True)
class Arrival:
    """A reaction as it was read. ``time_ms``: the broker's; ``value``: the record as it was."""

    offset: int
    time_ms: int
    reaction: Reaction
    value: bytes

    @property
    def wanted(self) -> tuple[bytes, str]:
        """By what it is looked up: impression id and kind."""
        return self.reaction.decision.impression_id, self.reaction.kind

    @property
    def user_id(self) -> str:
        """Whose reaction it is."""
        return self.reaction.decision.user_id


@dataclass(frozen=True, slots=True)
class New:
    """A reaction that is the first of its kind to its impression.

    ``late``: its impression was closed without it. ``settled``: its impression is closed and nothing is left to be
    decided.
    """

    arrival: Arrival
    late: bool
    settled: bool

    def to_store(self) -> Store:
        """What is written to Redis for it."""
        arrival = self.arrival
        kept = Kept(arrival.offset, arrival.time_ms, self.late, arrival.value)
        return Store(*arrival.wanted, kept, self.settled)


def judge(arrivals: Sequence[Arrival], seen: Sequence[Seen]) -> list[New]:
    """Return the reactions that are the first of their kind; the others are duplicates.

    A reaction is late iff its impression is closed and has not got it. One that has been through here before finds its
    own copy: either it was late then, and is in ``late-reactions``, or it was stored before the impression was closed,
    and whoever closed it has seen it.
    """
    new: list[New] = []
    here: set[tuple[bytes, str]] = set()
    for arrival, known in zip(arrivals, seen, strict=True):
        before = known.first is not None and known.first.offset < arrival.offset
        if before or arrival.wanted in here:
            continue
        here.add(arrival.wanted)
        closed = known.closed is not None
        new.append(New(arrival, late=closed and known.first is None, settled=closed))
    return new


STREAM = "reactions"
_EFFECTS: Mapping[str, tuple[Section, str]] = {
    "click": (CLICKS, "clicks"),
    "mute": (MUTES, "mutes"),
    "target": (TARGETS, "targets"),
}
"""What a kind of reaction adds to the user's record: an event to a section, one to a counter."""


def advance(records: Mapping[str, UserRecord], new: Iterable[New], log: int) -> dict[str, UserRecord]:
    """Return the records that change when reactions are applied to them, by user id. Applying again changes nothing.

    A late reaction counts too: it is no part of an example any more, but the user did it.

    Args:
        records: The users' records, by user id.
        new: The reactions, in the order of their offsets.
        log: Of which log those offsets are; see :class:`Position`.
    """
    changed: dict[str, UserRecord] = {}
    for each in new:
        arrival = each.arrival
        record = changed.get(arrival.user_id, records[arrival.user_id])
        if arrival.offset > record.applied(STREAM, log):
            changed[arrival.user_id] = _apply(record, arrival).moved(Position(STREAM, log, arrival.offset))
    return changed


def _apply(record: UserRecord, arrival: Arrival) -> UserRecord:
    decision = arrival.reaction.decision
    section, counter = _EFFECTS[arrival.reaction.kind.partition(":")[0]]
    return record.counted(**{"feedback": 1, counter: 1}).remembered(
        section,
        arrival.time_ms // 1000,
        content_key(decision.service, decision.content_id),
        service_key(decision.service),
        key64(decision.placement),
    )
