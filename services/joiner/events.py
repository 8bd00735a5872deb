"""Records of the two input topics, read and checked. What cannot be used raises Unreadable, and becomes a dead
letter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.deadletters import Unreadable

CONSUMER = "joiner"
IMPRESSION_ID_BYTES = 16
MAX_WEIGHT = 1e9
TARGET = "target:"

CLICK, MUTE = "click", "mute"


@dataclass(frozen=True, slots=True)
class Reaction:
    """A reaction to an impression. ``kind``: ``click``, ``mute`` or ``target:<name>``; ``weight`` only means something
    for a target action."""

    kind: str
    decision: events_pb2.Decision
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing happened: time passed."""


def _tick(_: events_pb2.Reaction) -> Tick:
    return Tick()


def _click(reaction: events_pb2.Reaction) -> Reaction:
    return Reaction(CLICK, _decision(reaction))


def _mute(reaction: events_pb2.Reaction) -> Reaction:
    return Reaction(MUTE, _decision(reaction))


def _target(reaction: events_pb2.Reaction) -> Reaction:
    name, weight = reaction.target.name, reaction.target.weight
    if not name:
        raise Unreadable("no_target_name", "target.name is empty")
    if not (math.isfinite(weight) and 0 <= weight <= MAX_WEIGHT):
        raise Unreadable("bad_weight", f"target.weight is {weight}, must be a finite number from 0 to {MAX_WEIGHT:g}")
    return Reaction(TARGET + name, _decision(reaction), weight or 1.0)


HANDLERS: Mapping[str, Callable[[events_pb2.Reaction], Reaction | Tick]] = {
    "click": _click,
    "mute": _mute,
    "target": _target,
    "tick": _tick,
}
"""How to read each kind of reaction: one entry for each case of ``events.v1.Reaction.kind``."""


def read_reaction(value: bytes) -> Reaction | Tick:
    """Read a value of topic ``reactions``; fields that are not known are ignored.

    Raises:
        Unreadable: It is no reaction, its kind is not known here, or a field that the join needs is missing.
    """
    message = _parse(events_pb2.Reaction, value)
    handler = HANDLERS.get(message.WhichOneof("kind") or "")
    if handler is None:
        raise Unreadable(
            "unknown_kind", f"a reaction of schema version {message.schema_version} has no kind that is known here"
        )
    return handler(message)


def read_impression(value: bytes) -> events_pb2.Decision:
    """Read the decision out of a value of topic ``impressions``; fields that are not known are kept in it.

    Raises:
        Unreadable: It is no impression, or a field that the join needs is missing.
    """
    return _decision(_parse(events_pb2.Impression, value))


MessageT = TypeVar("MessageT", events_pb2.Reaction, events_pb2.Impression)


def _parse(kind: type[MessageT], value: bytes) -> MessageT:
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
