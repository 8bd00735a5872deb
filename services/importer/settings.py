"""Settings of the Importer."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from banditmesh.runtime.addresses import HostPort, HostPortSetting
from banditmesh.runtime.settings import ServiceSettings, UsesRedis, UsesStore


class ImporterSettings(ServiceSettings, UsesRedis, UsesStore):
    """What the Importer reads from the environment; AWS_* variables beside it when files lie on S3."""

    grpc_address: HostPortSetting = Field(
        HostPort("0.0.0.0", 50051), description="host:port to serve gRPC on; port 0 takes a free one"
    )
    import_jobs: int = Field(
        8,
        ge=1,
        le=64,
        description="import jobs that this process works on at once; one service has at most half of them",
    )
    import_handover_s: float = Field(
        2.0,
        ge=0,
        description="seconds after a version went live in which its old slot stays as it is, for engines to notice",
    )
    import_local_files: bool = Field(
        False, description="allow every file:// uri, where mesh.yaml has no importing.allowed_uris; as `up` does"
    )
    provider_ca: Path | None = Field(
        None,
        description="roots of the Data Providers' certificates, PEM; when set, providers are called by TLS, with "
        "BANDITMESH_TLS_CERT as the client's certificate where there is one",
    )
    import_redis_timeout_s: float = Field(5.0, gt=0, description="seconds that a batch of writes to Redis may take")
