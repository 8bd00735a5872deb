"""Records of the two input topics, read and checked. What cannot be used raises Unreadable, and becomes a dead
letter."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.reactions import KINDS, ReactionKind, WrongReaction
from banditmesh.runtime.deadletters import Unreadable
from banditmesh.runtime.token import IMPRESSION_ID_BYTES

CONSUMER = "joiner"
TICK = "tick"
MAX_INPUT_BYTES = 64 * 1024
"""A record's value. What a tracker writes has one token in it, at most 4 KiB; whatever is made of a record of this size
fits into a record."""


@dataclass(frozen=True, slots=True)
class ReadReaction:
    """A reaction to an impression, as it was read.

    Attributes:
        offset: In its partition.
        time_ms: The broker's.
        kind: None: it is of a kind that a newer release knows.
        part: What tells several reactions of the kind to one impression apart, such as a target action's name; of a
            kind that is not known a digest of all that it says, so that a retry has the same.
        amount: Factor on its reward.
        decision: What the reaction is about.
        value: The record's value as it was.
    """

    offset: int
    time_ms: int
    kind: ReactionKind | None
    part: str
    amount: float
    decision: events_pb2.Decision
    value: bytes

    @property
    def key(self) -> str:
        """What tells the reactions to one impression apart; who knows a kind reads it out of the value again."""
        return f"?{self.part}" if self.kind is None else self.kind.key(self.part)


def read_reaction(offset: int, time_ms: int, value: bytes) -> ReadReaction | None:
    """Read a value of topic ``reactions``; None: a tick. Fields that are not known are ignored.

    Raises:
        Unreadable: It is no reaction, or a field of it is missing or not valid.
    """
    message = _parse(events_pb2.Reaction, value)
    case = message.WhichOneof("kind")
    if case == TICK:
        return None
    if case is None and not len(UnknownFieldSet(message)):
        raise Unreadable("no_kind", "the reaction has no kind")
    decision = _decision(message)
    kind = KINDS.get(case or "")
    if kind is None:
        return ReadReaction(offset, time_ms, None, _digest(message), 1.0, decision, value)
    try:
        part, amount = kind.read(getattr(message, kind.name))
    except WrongReaction as error:
        raise Unreadable(error.reason, str(error)) from error
    return ReadReaction(offset, time_ms, kind, part, amount, decision, value)


def _digest(message: events_pb2.Reaction) -> str:
    """Of what happened, in fields that this release may not know; what is about the record is left out."""
    what = events_pb2.Reaction()
    what.CopyFrom(message)
    for name in ("schema_version", "decision", "client_time_ms"):
        what.ClearField(name)
    return blake2b(what.SerializeToString(deterministic=True), digest_size=8).hexdigest()


def read_impression(value: bytes) -> events_pb2.Decision:
    """Read the decision out of a value of topic ``impressions``; fields that are not known are kept in it.

    Raises:
        Unreadable: It is no impression, or a field that the join needs is missing.
    """
    return _decision(_parse(events_pb2.Impression, value))


MessageT = TypeVar("MessageT", events_pb2.Reaction, events_pb2.Impression)


def _parse(kind: type[MessageT], value: bytes) -> MessageT:
    if len(value) > MAX_INPUT_BYTES:
        raise Unreadable("too_large", f"the value has {len(value)} bytes, at most {MAX_INPUT_BYTES} may be")
    try:
        message = kind.FromString(value)
    except DecodeError as error:
        raise Unreadable("not_a_protobuf", f"{len(value)} bytes are no {kind.DESCRIPTOR.full_name}") from error
    if message.schema_version == 0:
        raise Unreadable("no_schema_version", "schema_version is 0, must be at least 1")
    return message


def _decision(message: events_pb2.Reaction | events_pb2.Impression) -> events_pb2.Decision:
    decision = message.decision
    if not message.HasField("decision"):
        raise Unreadable("no_decision", "decision is missing")
    if len(decision.impression_id) != IMPRESSION_ID_BYTES:
        raise Unreadable(
            "bad_impression_id",
            f"decision.impression_id has {len(decision.impression_id)} bytes, must have {IMPRESSION_ID_BYTES}",
        )
    if not decision.user_id:
        raise Unreadable("no_user_id", "decision.user_id is empty")
    return decision
