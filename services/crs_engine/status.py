"""What ``GetModelStatus`` answers."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as pb
from services.crs_engine.models import Models, ModelSlot


def model_status(models: Models, placement: str) -> pb.GetModelStatusResponse:
    """Every model of the placement, or of all when it is empty."""
    return pb.GetModelStatusResponse(
        models=[_status(slot) for slot in models.slots.values() if placement in ("", slot.placement)]
    )


def _status(slot: ModelSlot) -> pb.ModelStatus:
    loaded = slot.loaded
    return pb.ModelStatus(
        placement=slot.placement,
        model=slot.model,
        policy=slot.policy,
        variants=slot.variants,
        version=loaded.version,
        published_at=_timestamp(loaded.published_at_ms) if loaded.version else None,
        loaded_at=_timestamp(int(loaded.loaded_at_s * 1000)) if loaded.version else None,
        examples=loaded.examples,
        refused=slot.refused,
    )


def _timestamp(milliseconds: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMilliseconds(milliseconds)
    return timestamp
