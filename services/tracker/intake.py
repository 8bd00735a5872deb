"""The checks that an event passes, and the record that it becomes.

What an event of a kind must be stands in :mod:`banditmesh.reactions`, where the joiner finds it too: what is accepted
here is used there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.lengths import END_S
from banditmesh.reactions import KINDS, ReactionKind, WrongReaction
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.token import KeyRing, TokenError, TokenFault

SCHEMA_VERSION = 1
MOST_NAMED = 10

_BY_FAULT: Mapping[TokenFault, tracker_pb2.EventStatus.ValueType] = {
    TokenFault.MALFORMED: tracker_pb2.EVENT_STATUS_TOKEN_MALFORMED,
    TokenFault.FORGED: tracker_pb2.EVENT_STATUS_TOKEN_FORGED,
    TokenFault.UNKNOWN_KEY: tracker_pb2.EVENT_STATUS_TOKEN_UNKNOWN_KEY,
    TokenFault.EXPIRED: tracker_pb2.EVENT_STATUS_TOKEN_EXPIRED,
}


class Accepted(NamedTuple):
    """An event that is to be stored: the value of ``record`` is a serialised ``events.v1`` message, its key the user
    id."""

    kind: str
    token_key: int
    impression_id: bytes
    record: Record


class Refused(NamedTuple):
    """An event that is not, and why. ``fault`` when it is the token's, ``token_key`` when the token names a key of
    ours."""

    kind: str
    token_key: int | None
    impression_id: bytes
    status: tracker_pb2.EventStatus.ValueType
    message: str
    fault: TokenFault | None = None


class WrongEvent(Exception):
    """An event whose token is good and whose content is not."""

    def __init__(self, status: tracker_pb2.EventStatus.ValueType, message: str) -> None:
        super().__init__(message)
        self.status = status


SHOWN = "shown"
CASES: tuple[str, ...] = (SHOWN, *KINDS)
"""The cases of ``Event.kind``."""


def _impression(decision: events_pb2.Decision, client_time_ms: int) -> bytes:
    """The whole decision, from which the learner will learn."""
    impression = events_pb2.Impression(schema_version=SCHEMA_VERSION, decision=decision, client_time_ms=client_time_ms)
    return impression.SerializeToString()


def _reaction(
    kind: ReactionKind,
    event: tracker_pb2.Event,
    decision: events_pb2.Decision,
    placement: Placement,
    client_time_ms: int,
) -> bytes:
    """A reaction carries the decision without its features: the impression has them. Raises WrongEvent."""
    message = getattr(event, kind.name)
    try:
        part, _ = kind.read(message)
    except WrongReaction as error:
        raise WrongEvent(tracker_pb2.EVENT_STATUS_INVALID, str(error)) from error
    listed = None if kind.listed is None else kind.listed(placement.rewards)
    if listed is not None and part not in listed:
        raise WrongEvent(
            tracker_pb2.EVENT_STATUS_UNKNOWN_TARGET,
            f"{kind.name}.name = {part!r}: rewards.{kind.name}s of placement {decision.placement!r} has "
            f"{_named(listed)}",
        )
    decision.ClearField("features")
    reaction = events_pb2.Reaction(schema_version=SCHEMA_VERSION, decision=decision, client_time_ms=client_time_ms)
    getattr(reaction, kind.name).CopyFrom(message)
    return reaction.SerializeToString()


def _named(listed: Collection[str]) -> str:
    """Names in words, the first ones of many: a request has a thousand events, and its answer must fit a message."""
    more = len(listed) - MOST_NAMED
    return ", ".join(sorted(listed)[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "") or "none"


@dataclass(frozen=True)
class Intake:
    """What events are checked against."""

    mesh: Mesh
    keys: KeyRing
    topics: Topics
    clock: Clock

    def check(self, event: tracker_pb2.Event) -> Accepted | Refused:
        """The record that an event becomes, or why it does not."""
        kind = event.WhichOneof("kind")
        try:
            decision, token_key = self.keys.read(
                event.impression_token, now_s=self.clock.now_s(), max_age_s=self.mesh.token.max_age
            )
        except TokenError as error:
            return Refused(kind or "none", error.key, b"", _BY_FAULT[error.fault], str(error), error.fault)
        try:
            if kind is None:
                raise WrongEvent(
                    tracker_pb2.EVENT_STATUS_INVALID, f"kind: the event has none; set one of {', '.join(CASES)}"
                )
            placement = self.mesh.placements.get(decision.placement)
            if placement is None:
                raise WrongEvent(
                    tracker_pb2.EVENT_STATUS_UNKNOWN_PLACEMENT,
                    f"the token's placement {decision.placement!r} is not in mesh.yaml (any more)",
                )
            client_time_ms = _client_time_ms(event)
            if kind == SHOWN:
                topic, value = self.topics.impressions, _impression(decision, client_time_ms)
            else:
                topic = self.topics.reactions
                value = _reaction(KINDS[kind], event, decision, placement, client_time_ms)
        except WrongEvent as error:
            return Refused(kind or "none", token_key, decision.impression_id, error.status, str(error))
        return Accepted(kind, token_key, decision.impression_id, Record(topic, decision.user_id.encode(), value))


def _client_time_ms(event: tracker_pb2.Event) -> int:
    """Milliseconds since the Unix epoch; 0 when the app did not say. A wrong clock is no reason to lose an event, no
    timestamp at all is."""
    if not event.HasField("client_time"):
        return 0
    seconds, nanos = event.client_time.seconds, event.client_time.nanos
    if not (0 <= seconds < END_S and 0 <= nanos < 1_000_000_000):
        raise WrongEvent(
            tracker_pb2.EVENT_STATUS_INVALID,
            f"client_time = {seconds} s and {nanos} ns: must be a timestamp from 1970 to 9999, or left out",
        )
    return seconds * 1000 + nanos // 1_000_000
