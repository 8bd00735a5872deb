"""What the tracker reads from the environment."""

from __future__ import annotations

from pydantic import Field

from banditmesh.runtime.settings import ServiceSettings, UsesKafka, UsesTokens


class TrackerSettings(ServiceSettings, UsesKafka, UsesTokens):
    """Settings of the tracker."""

    ack_timeout_s: float = Field(
        3.0, gt=0, description="seconds that Kafka has for an acknowledgement before callers are told to retry"
    )
    max_waiting_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024 * 1024,
        description="memory for events that Kafka has not acknowledged; when it is full callers are told to retry",
    )
