"""Section ``engine`` of ``mesh.yaml``."""

from __future__ import annotations

from pydantic import Field

from banditmesh.bandits.durations import Positive
from banditmesh.lengths import MAX_BATCH
from banditmesh.runtime.section import Section


class Engine(Section):
    """The engine."""

    redis_timeout: Positive = Field(0.05, description="After this long without an answer the fallback is shown.")
    max_batch: int = Field(128, ge=1, le=MAX_BATCH, description="Waiting requests that are taken together at most.")
    max_waiting: int = Field(
        1024,
        ge=MAX_BATCH,
        le=100_000,
        description="Requests that wait at most; a call that would be one too many gets RESOURCE_EXHAUSTED.",
    )
    catalog_size: int = Field(1_000_000, ge=1000, le=100_000_000, description="Contents that an engine keeps at most.")
    catalog_mib: int = Field(
        1024, ge=16, le=1_048_576, description="MiB that these contents may take, beside their features."
    )
    model_poll: Positive = Field(10.0, description="How often the engine looks for a newer snapshot.")
    fallback_contents: int = Field(
        100, ge=1, le=10_000, description="How many of the most popular contents the fallback chooses from."
    )
