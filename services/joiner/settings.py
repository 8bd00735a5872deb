"""Settings of the joiner."""

from __future__ import annotations

from pydantic import Field

from banditmesh.runtime.settings import ServiceSettings, UsesKafka, UsesRedis


class JoinerSettings(ServiceSettings, UsesKafka, UsesRedis):
    """What the joiner reads from the environment."""

    redis_timeout_s: float = Field(2.0, gt=0, description="seconds that one Redis command may take")
    batch: int = Field(500, ge=1, le=5000, description="records stored together at most; four times as many are joined")
    session_timeout_s: float = Field(
        10.0, ge=6, le=60, description="seconds after which the partitions of a joiner that died are given to others"
    )
    client_id: str = Field("joiner", description="how this process calls itself to Kafka")
