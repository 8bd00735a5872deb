"""What stands in the topics, as the oracle takes it in."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from banditmesh.contracts.events.v1 import events_pb2

Key = tuple[str, str]
"""Kind and part of a reaction: two with the same key to one impression are one that was sent twice."""
_ID_BYTES = 16
M = TypeVar("M", bound=Message)
_OUTCOMES = {
    events_pb2.OUTCOME_NONE: "none",
    events_pb2.OUTCOME_CLICK: "click",
    events_pb2.OUTCOME_MUTE: "mute",
    events_pb2.OUTCOME_TARGET: "target",
    events_pb2.OUTCOME_DWELL: "dwell",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """The first copy of an impression."""

    partition: int
    offset: int
    time_ms: int
    user: str
    placement: str


@dataclass(frozen=True, slots=True)
class Reacted:
    """The first copy of a reaction."""

    offset: int
    time_ms: int
    amount: float


@dataclass(frozen=True, slots=True)
class Found:
    """An example that stands in the topic. ``source``: partition, log and offset of its impression."""

    partition: int
    offset: int
    user: str
    placement: str
    source: tuple[int, int, int]
    outcome: str
    target: str
    reward: float
    impression_time_ms: int
    reaction_time_ms: int
    reactions: tuple[str, ...]


@dataclass
class Evidence:
    """Everything that was read so far.

    Attributes:
        shown: First copy of each impression, by id.
        reacted: First copies of reactions, by impression id and key.
        unknown: Offsets of reactions of kinds that this release does not know: partition and offset.
        found: All examples, by impression id.
        late: How often each reaction stands in ``late-reactions``.
        letters: Topic, partition and offset of the records that dead letters hold; how often.
        unreadable: Records that are no message of their topic: (topic, partition, offset).
        ticks: Ticks in each partition of ``examples`` since its last example.
        awaited: Impressions that have no example yet.
        poisoned: Records that look like messages and must be refused all the same.
    """

    shown: dict[bytes, Shown] = field(default_factory=dict)
    copies: int = 0
    reacted: dict[bytes, dict[Key, Reacted]] = field(default_factory=lambda: defaultdict(dict))
    unknown: list[tuple[int, int]] = field(default_factory=list)
    found: dict[bytes, list[Found]] = field(default_factory=lambda: defaultdict(list))
    late: Counter[tuple[bytes, Key]] = field(default_factory=Counter)
    letters: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    unreadable: list[tuple[str, int, int]] = field(default_factory=list)
    ticks: Counter[int] = field(default_factory=Counter)
    awaited: set[bytes] = field(default_factory=set)
    poisoned: set[tuple[str, int, int]] = field(default_factory=set)

    def impression(self, partition: int, offset: int, time_ms: int, value: bytes) -> None:
        """Take in a record of topic ``impressions``."""
        message = _parsed(events_pb2.Impression, value)
        if message is None or not _whole(message) or ("impressions", partition, offset) in self.poisoned:
            self.unreadable.append(("impressions", partition, offset))
            return
        decision = message.decision
        if decision.impression_id in self.shown:
            self.copies += 1
            return
        self.shown[decision.impression_id] = Shown(partition, offset, time_ms, decision.user_id, decision.placement)
        if decision.impression_id not in self.found:
            self.awaited.add(decision.impression_id)

    def reaction(self, partition: int, offset: int, time_ms: int, value: bytes) -> None:
        """Take in a record of topic ``reactions``."""
        message = _parsed(events_pb2.Reaction, value)
        kind = None if message is None else message.WhichOneof("kind")
        if kind == "tick":
            return
        poisoned = ("reactions", partition, offset) in self.poisoned
        if message is None or poisoned or not _whole(message) or (kind is None and not _has_more(message, value)):
            self.unreadable.append(("reactions", partition, offset))
        elif kind is None:
            self.unknown.append((partition, offset))
        else:
            key, amount = _read(message, kind)
            self.reacted[message.decision.impression_id].setdefault(key, Reacted(offset, time_ms, amount))

    def example(self, partition: int, offset: int, value: bytes) -> None:
        """Take in a record of topic ``examples``."""
        message = _parsed(events_pb2.Example, value)
        body = None if message is None else message.WhichOneof("body")
        if body == "tick":
            self.ticks[partition] += 1
            return
        joined = None if message is None else message.joined
        poisoned = ("examples", partition, offset) in self.poisoned
        if message is None or joined is None or poisoned or body is None or not message.HasField("source"):
            self.unreadable.append(("examples", partition, offset))
            return
        self.ticks[partition] = 0
        source = message.source
        self.found[joined.decision.impression_id].append(
            Found(
                partition,
                offset,
                joined.decision.user_id,
                joined.decision.placement,
                (source.partition, source.log, source.offset),
                _OUTCOMES.get(joined.outcome, "unspecified"),
                joined.target,
                joined.reward,
                joined.impression_time_ms,
                joined.reaction_time_ms,
                tuple(_OUTCOMES.get(each, "unspecified") for each in joined.reactions),
            )
        )
        self.awaited.discard(joined.decision.impression_id)

    def late_reaction(self, partition: int, offset: int, value: bytes) -> None:
        """Take in a record of topic ``late-reactions``."""
        if ("late-reactions", partition, offset) in self.poisoned:
            return
        message = _parsed(events_pb2.Reaction, value)
        kind = None if message is None else message.WhichOneof("kind")
        if message is not None and kind is not None and kind != "tick":
            self.late[message.decision.impression_id, _read(message, kind)[0]] += 1

    def dead_letter(self, value: bytes) -> None:
        """Take in a record of topic ``dead-letters``."""
        letter = _parsed(events_pb2.DeadLetter, value)
        if letter is not None and letter.topic:
            self.letters[letter.topic, letter.partition, letter.offset] += 1


def _parsed(kind: type[M], value: bytes) -> M | None:
    """The message; None where the bytes are none."""
    message = kind()
    try:
        message.ParseFromString(value)
    except DecodeError:
        return None
    return message


def _whole(message: events_pb2.Reaction | events_pb2.Impression) -> bool:
    decision = message.decision
    return bool(message.schema_version and len(decision.impression_id) == _ID_BYTES and decision.user_id)


def _has_more(message: events_pb2.Reaction, value: bytes) -> bool:
    """Whether it has fields that this release does not know: without them its bytes are fewer."""
    known = events_pb2.Reaction()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return bool(known.ByteSize() < len(value))


def _read(message: events_pb2.Reaction, kind: str) -> tuple[Key, float]:
    if kind == "target":
        return (kind, message.target.name), message.target.weight or 1.0
    if kind == "dwell":
        return (kind, str(message.dwell.part)), message.dwell.seconds
    return (kind, ""), 1.0
