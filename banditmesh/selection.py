"""What the client hands out: a content to show, or the reason to show nothing; and the errors that answers carry item
by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.runtime.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MeshError,
    NotFound,
    Unauthenticated,
    error_type,
)


class Origin(Enum):
    """Where a content comes from."""

    UNKNOWN = events_pb2.ORIGIN_UNSPECIFIED
    """Not said, or said by a newer engine."""
    POLICY = events_pb2.ORIGIN_POLICY
    FALLBACK_NO_CANDIDATES = events_pb2.ORIGIN_FALLBACK_NO_CANDIDATES
    FALLBACK_STORE_UNAVAILABLE = events_pb2.ORIGIN_FALLBACK_STORE_UNAVAILABLE


class Reason(Enum):
    """Why a slot stays empty."""

    UNKNOWN = crs_engine_pb2.NO_CONTENT_REASON_UNSPECIFIED
    """Not said, or said by a newer engine."""
    NO_CANDIDATES = crs_engine_pb2.NO_CONTENT_REASON_NO_CANDIDATES
    ALL_FILTERED = crs_engine_pb2.NO_CONTENT_REASON_ALL_FILTERED
    MUTED = crs_engine_pb2.NO_CONTENT_REASON_MUTED


@dataclass(frozen=True)
class Selected:
    """Show this, and track what happens to it with its ``token``.

    ``attributes``: as the service's Data Provider gave them, either values or one number each. ``impression_id``: 16
    bytes, the name of this impression in logs and in Kafka. ``logic``: the service's logic that proposed the content;
    empty when the fallback did.
    """

    service: str
    content_id: str
    title: str
    uri: str
    attributes: Mapping[str, tuple[str, ...] | float]
    token: bytes = field(repr=False)
    impression_id: bytes
    logic: str
    variant: str
    origin: Origin
    image_uri: str = ""


@dataclass(frozen=True)
class Nothing:
    """Show nothing. ``until``: when the reason will have gone, where that is known (after a mute); UTC."""

    reason: Reason
    message: str
    until: datetime | None


def of_result(result: crs_engine_pb2.BatchSelectContentsResult) -> Selected | Nothing | MeshError:
    """One answer of a batch."""
    if result.WhichOneof("result") == "error":
        error = result.error
        return error_type(error.code)(error.message, field=error.field or None)
    outcome = result.selection.WhichOneof("outcome")
    if outcome == "content":
        return _selected(result.selection.content)
    if outcome == "no_content":
        return _nothing(result.selection.no_content)
    return Internal("the engine answered with neither a content nor a reason")


def of_recommendations(response: crs_engine_pb2.RecommendContentsResponse) -> Sequence[Selected] | Nothing:
    """A ranked list."""
    if not response.contents:
        return _nothing(response.no_content)
    return tuple(map(_selected, response.contents))


_ERRORS: Mapping[tracker_pb2.EventStatus.ValueType, type[MeshError]] = {
    tracker_pb2.EVENT_STATUS_INVALID: InvalidArgument,
    tracker_pb2.EVENT_STATUS_TOKEN_MALFORMED: InvalidArgument,
    tracker_pb2.EVENT_STATUS_TOKEN_FORGED: Unauthenticated,
    tracker_pb2.EVENT_STATUS_TOKEN_UNKNOWN_KEY: Unauthenticated,
    tracker_pb2.EVENT_STATUS_TOKEN_EXPIRED: FailedPrecondition,
    tracker_pb2.EVENT_STATUS_UNKNOWN_PLACEMENT: NotFound,
    tracker_pb2.EVENT_STATUS_UNKNOWN_TARGET: NotFound,
}


def of_event(result: tracker_pb2.EventResult) -> MeshError | None:
    """None for an accepted event, else why it was not; ``metadata["status"]`` has the status's name."""
    if result.status == tracker_pb2.EVENT_STATUS_ACCEPTED:
        return None
    known = result.status in tracker_pb2.EventStatus.values()
    status = tracker_pb2.EventStatus.Name(result.status) if known else str(result.status)
    return _ERRORS.get(result.status, Internal)(result.message or status, metadata={"status": status})


def _selected(selected: crs_engine_pb2.SelectedContent) -> Selected:
    content = selected.content
    return Selected(
        service=selected.service,
        content_id=content.content_id,
        title=content.title,
        uri=content.uri,
        attributes={each.name: _attribute(each) for each in content.attributes},
        token=selected.impression_token,
        impression_id=selected.impression_id,
        logic=selected.logic,
        variant=selected.variant,
        origin=Origin(selected.origin) if selected.origin in events_pb2.Origin.values() else Origin.UNKNOWN,
        image_uri=content.image_uri,
    )


def _attribute(attribute: provider_pb2.Attribute) -> tuple[str, ...] | float:
    return attribute.number if attribute.HasField("number") else tuple(attribute.values)


def _nothing(nothing: crs_engine_pb2.NoContent) -> Nothing:
    known = nothing.reason in crs_engine_pb2.NoContentReason.values()
    return Nothing(
        reason=Reason(nothing.reason) if known else Reason.UNKNOWN,
        message=nothing.message,
        until=nothing.until.ToDatetime(UTC) if nothing.HasField("until") else None,
    )
