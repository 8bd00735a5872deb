"""The checks that an event passes, and the record that it becomes.

One handler for each case of ``Event.kind``: a new kind of event is one message, one case, one entry in
:data:`HANDLERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.mesh import Mesh, Placement
from banditmesh.runtime.token import KeyRing, TokenError, TokenFault

SCHEMA_VERSION = 1
MAX_CLIENT_TIME_S = 253_402_300_800
"""The end of year 9999, where google.protobuf.Timestamp ends."""

_BY_FAULT: Mapping[TokenFault, tracker_pb2.EventStatus.ValueType] = {
    TokenFault.MALFORMED: tracker_pb2.EVENT_STATUS_TOKEN_MALFORMED,
    TokenFault.FORGED: tracker_pb2.EVENT_STATUS_TOKEN_FORGED,
    TokenFault.UNKNOWN_KEY: tracker_pb2.EVENT_STATUS_TOKEN_UNKNOWN_KEY,
    TokenFault.EXPIRED: tracker_pb2.EVENT_STATUS_TOKEN_EXPIRED,
}


class Stream(Enum):
    """Where a record goes."""

    IMPRESSIONS = "impressions"
    REACTIONS = "reactions"


class Accepted(NamedTuple):
    """An event that is to be stored: ``value`` is a serialised ``events.v1`` message, ``key`` the user id."""

    kind: str
    token_key: int
    impression_id: bytes
    stream: Stream
    key: bytes
    value: bytes


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


Handler = Callable[[tracker_pb2.Event, events_pb2.Decision, Placement, int], tuple[Stream, bytes]]
"""(event, its token's decision, the decision's placement, client time in ms) → where to, and the record's value. Raises
WrongEvent."""


def shown(
    _event: tracker_pb2.Event, decision: events_pb2.Decision, _placement: Placement, client_time_ms: int
) -> tuple[Stream, bytes]:
    """An impression: the whole decision, from which the learner will learn."""
    impression = events_pb2.Impression(schema_version=SCHEMA_VERSION, decision=decision, client_time_ms=client_time_ms)
    return Stream.IMPRESSIONS, impression.SerializeToString()


def click(
    event: tracker_pb2.Event, decision: events_pb2.Decision, _placement: Placement, client_time_ms: int
) -> tuple[Stream, bytes]:
    """A click."""
    return _reaction(decision, events_pb2.Reaction(client_time_ms=client_time_ms, click=event.click))


def mute(
    event: tracker_pb2.Event, decision: events_pb2.Decision, _placement: Placement, client_time_ms: int
) -> tuple[Stream, bytes]:
    """A mute."""
    return _reaction(decision, events_pb2.Reaction(client_time_ms=client_time_ms, mute=event.mute))


def target(
    event: tracker_pb2.Event, decision: events_pb2.Decision, placement: Placement, client_time_ms: int
) -> tuple[Stream, bytes]:
    """A target action that the placement lists, with a weight that multiplies its reward."""
    action = event.target
    known = placement.rewards.targets
    if action.name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise WrongEvent(
            tracker_pb2.EVENT_STATUS_UNKNOWN_TARGET,
            f"target.name = {action.name[:80]!r}: rewards.targets of placement {decision.placement!r} has {listed}",
        )
    if not (math.isfinite(action.weight) and action.weight >= 0):
        raise WrongEvent(
            tracker_pb2.EVENT_STATUS_INVALID,
            f"target.weight = {action.weight:g}: must be a finite number greater than 0 (or 0 for the default, 1)",
        )
    stored = events_pb2.TargetAction(name=action.name, weight=action.weight or 1.0)
    return _reaction(decision, events_pb2.Reaction(client_time_ms=client_time_ms, target=stored))


HANDLERS: Mapping[str, Handler] = {"shown": shown, "click": click, "mute": mute, "target": target}
"""By case of ``Event.kind``."""


@dataclass(frozen=True)
class Intake:
    """What events are checked against."""

    mesh: Mesh
    keys: KeyRing
    clock: Clock

    def check(self, event: tracker_pb2.Event) -> Accepted | Refused:
        """The record that an event becomes, or why it does not."""
        kind = event.WhichOneof("kind")
        try:
            decision = self.keys.verify(
                event.impression_token, now_s=self.clock.now_s(), max_age_s=self.mesh.token.max_age
            )
        except TokenError as error:
            return Refused(kind or "none", error.key, b"", _BY_FAULT[error.fault], str(error), error.fault)
        token_key = event.impression_token[1]
        try:
            if kind is None:
                raise WrongEvent(
                    tracker_pb2.EVENT_STATUS_INVALID, f"kind: the event has none; set one of {', '.join(HANDLERS)}"
                )
            placement = self.mesh.placements.get(decision.placement)
            if placement is None:
                raise WrongEvent(
                    tracker_pb2.EVENT_STATUS_UNKNOWN_PLACEMENT,
                    f"the token's placement {decision.placement!r} is not in mesh.yaml (any more)",
                )
            stream, value = HANDLERS[kind](event, decision, placement, _client_time_ms(event))
        except WrongEvent as error:
            return Refused(kind or "none", token_key, decision.impression_id, error.status, str(error))
        return Accepted(kind, token_key, decision.impression_id, stream, decision.user_id.encode(), value)


def _reaction(decision: events_pb2.Decision, reaction: events_pb2.Reaction) -> tuple[Stream, bytes]:
    """Reactions carry the decision without its features: the impression has them."""
    decision.ClearField("features")
    reaction.schema_version = SCHEMA_VERSION
    reaction.decision.CopyFrom(decision)
    return Stream.REACTIONS, reaction.SerializeToString()


def _client_time_ms(event: tracker_pb2.Event) -> int:
    """Milliseconds since the Unix epoch; 0 when the app did not say. A wrong clock is no reason to lose an event, no
    timestamp at all is."""
    if not event.HasField("client_time"):
        return 0
    seconds, nanos = event.client_time.seconds, event.client_time.nanos
    if not (0 <= seconds < MAX_CLIENT_TIME_S and 0 <= nanos < 1_000_000_000):
        raise WrongEvent(
            tracker_pb2.EVENT_STATUS_INVALID,
            f"client_time = {seconds} s and {nanos} ns: must be a timestamp from 1970 to 9999, or left out",
        )
    return seconds * 1000 + nanos // 1_000_000
