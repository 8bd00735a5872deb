"""Settings of the engine from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from banditmesh.runtime.addresses import HostPort, HostPortSetting
from banditmesh.runtime.settings import MayUseKafka, ServiceSettings, UsesRedis, UsesStore, UsesTokens


class EngineSettings(ServiceSettings, MayUseKafka, UsesRedis, UsesStore, UsesTokens):
    """What the engine needs to know about where it runs."""

    grpc_address: HostPortSetting = Field(
        HostPort("0.0.0.0", 50052), description="host:port to serve gRPC on; port 0 takes a free one"
    )
    max_waiting_rpcs: int = Field(
        192,
        ge=1,
        description="calls that stand in a line for the event loop; one more is cut off (CANCELLED). As many as are "
        "taken up in a tenth of a second: callers that have waited longer are answered in vain",
    )
    model_cache: Path | None = Field(
        None, description="folder for downloaded models, shared by the engines of a host; empty: keep them in memory"
    )
    keep_models: bool = Field(
        False,
        description="start with the models and the fallbacks' contents that lie in the model cache when the store or "
        "Redis is away; needs one that survives a restart",
    )
