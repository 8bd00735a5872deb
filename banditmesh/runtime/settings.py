"""Settings from the environment: what differs between two installations, never what differs between two placements.

A service declares what it needs by inheritance (``class TrackerSettings(ServiceSettings, UsesKafka, UsesTokens)``);
what it does not inherit it cannot read, and what is missing is said before anything starts.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from banditmesh.runtime.addresses import (
    REDIS_PREFIX,
    HostPort,
    HostPortSetting,
    KafkaAccess,
    KafkaAddress,
    KafkaSetting,
    OptionalKafkaSetting,
    RedisAccess,
    RedisAddress,
    RedisSetting,
    SaslMechanism,
    SecurityProtocol,
    StoreSetting,
    shown,
)
from banditmesh.runtime.errors import SHOWN_VALUE_CHARACTERS, ConfigurationError

PREFIX = "BANDITMESH_"
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console", "auto"]


class Environment(BaseSettings):
    """Base of all settings groups."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")


class ServiceSettings(Environment):
    """What every service has."""

    config: Path = Field(Path("mesh.yaml"), description="the mesh configuration: services, placements, experiments")
    grpc_address: HostPortSetting = Field(
        HostPort("0.0.0.0", 50051), description="host:port to serve gRPC on; port 0 takes a free one"
    )
    metrics_host: str = Field("0.0.0.0", description="host to serve Prometheus metrics on")
    metrics_port: int = Field(9090, ge=0, le=65_535, description="port of /metrics; 0 takes a free one")
    log_level: LogLevel = Field("info", description="debug, info, warning or error")
    log_format: LogFormat = Field("auto", description="json, console, or auto: console on a terminal, else json")
    max_message_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="largest gRPC request; a larger one gets RESOURCE_EXHAUSTED"
    )
    default_deadline_s: float = Field(
        10.0, gt=0, description="seconds that a call may take whose client set no deadline"
    )
    drain_delay_s: float = Field(
        0.0, ge=0, description="seconds from NOT_SERVING to refusing calls, so that load balancers see it first"
    )
    grace_s: float = Field(10.0, ge=0, description="seconds that calls in flight get to finish on stop")
    reuse_port: bool = Field(False, description="let several processes of this service share the gRPC port")
    reflection: bool = Field(True, description="serve gRPC reflection, for grpcurl")
    tls_cert: Path | None = Field(
        None, description="the server's certificate, PEM; absent: plaintext. Read again when it changes"
    )
    tls_key: Path | None = Field(None, description="its private key, PEM")
    tls_client_ca: Path | None = Field(
        None, description="roots of the clients' certificates, PEM; when set, every client must show one (mutual TLS)"
    )
    health_address: HostPortSetting | None = Field(
        None, description="host:port of a plaintext port that serves health alone, for probes that speak no TLS"
    )
    max_concurrent_rpcs: int = Field(
        1024, ge=1, description="calls that are worked on at once; one more gets RESOURCE_EXHAUSTED"
    )
    max_waiting_rpcs: int = Field(
        2048, ge=1, description="calls that stand in a line for the event loop; one more is cut off (CANCELLED)"
    )
    max_connections: int = Field(4096, ge=1, description="gRPC connections at once")
    max_metadata_bytes: int = Field(8192, ge=1024, description="headers of a call")
    max_connection_age_s: float = Field(
        120.0, gt=0, description="seconds after which a client is asked to connect again and finds new servers; ±10 %"
    )
    connection_grace_s: float = Field(600.0, ge=0, description="seconds that calls get to finish on such a connection")
    pod_name: str = Field(
        "",
        description="name of this pod: a change of mesh.yaml, taken or refused, becomes a Kubernetes event of it; "
        "needs a mounted token that may create events",
    )
    pod_uid: str = Field("", description="uid of this pod, so that `kubectl describe pod` finds the event")


class IsClient(Environment):
    """For commands that call services of a mesh."""

    client_ca: Path | None = Field(None, description="roots of the servers' certificates, PEM; absent: plaintext")
    client_cert: Path | None = Field(None, description="the client's own certificate, PEM, for mutual TLS")
    client_key: Path | None = Field(None, description="its private key, PEM")
    client_api_key: SecretStr | None = Field(None, description="a key of the mesh's access table")


def _there(file: Path | None) -> Path | None:
    """The path of a file that can be read. Raises ValueError."""
    if file is not None and not os.access(file, os.R_OK):
        raise ValueError(f"the file {str(file)!r} cannot be read")
    return file


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


class KafkaAccessSettings(Environment):
    """How Kafka is spoken to."""

    kafka_security_protocol: SecurityProtocol = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, as Kafka's security.protocol"
    )
    kafka_sasl_mechanism: SaslMechanism = Field(
        "PLAIN", description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, as Kafka's sasl.mechanism"
    )
    kafka_username: str | None = Field(None, description="user of PLAIN and SCRAM")
    kafka_password: SecretStr | None = Field(None, description="its password")
    kafka_token: str | None = Field(
        None,
        description="where OAUTHBEARER tokens come from: aws-msk-iam, file:///path (read again when it changes), or "
        "package.module:function",
    )
    kafka_ca_file: Path | None = Field(
        None, description="PEM of the brokers' certification authority; by default those of the system"
    )
    kafka_certificate_file: Path | None = Field(None, description="PEM of our own certificate, for mutual TLS")
    kafka_key_file: Path | None = Field(None, description="PEM of its key")
    kafka_key_password: SecretStr | None = Field(None, description="password of that file, if it has one")

    @field_validator("kafka", check_fields=False)
    @classmethod
    def _kafka_with_access(cls, address: KafkaAddress | None, info: ValidationInfo) -> KafkaAddress | None:
        """The address carries how its servers are spoken to, so that nobody can forget the one or the other."""
        if address is None or address.access != KafkaAccess():  # none, or made in the program, whole
            return address
        given = info.data
        access = KafkaAccess(
            # Absent when it is wrong itself, which is said on a line of its own.
            protocol=given.get("kafka_security_protocol", "PLAINTEXT"),
            mechanism=given.get("kafka_sasl_mechanism", "PLAIN"),
            username=given.get("kafka_username"),
            password=_secret(given.get("kafka_password")),
            token=given.get("kafka_token"),
            ca_file=_there(given.get("kafka_ca_file")),
            certificate_file=_there(given.get("kafka_certificate_file")),
            key_file=_there(given.get("kafka_key_file")),
            key_password=_secret(given.get("kafka_key_password")),
        )
        problem = access.problem()
        if problem is not None and "kafka_security_protocol" in given and "kafka_sasl_mechanism" in given:
            raise ValueError(problem)
        return dataclasses.replace(address, access=access)


class UsesKafka(KafkaAccessSettings):
    """For services that produce or consume."""

    kafka: KafkaSetting = Field(description="bootstrap servers, host:port,host:port")


class MayUseKafka(KafkaAccessSettings):
    """For a service that has something to say to Kafka, and does without it."""

    kafka: OptionalKafkaSetting = Field(
        None, description="bootstrap servers, host:port,host:port, for sampled decisions; absent: none are sampled"
    )


class UsesRedis(Environment):
    """For services that keep or read user state and candidates."""

    redis_prefix: str = Field(
        "",
        pattern=REDIS_PREFIX,
        description="stands before every key, so that several meshes can share one Redis; letters, digits and _.:-",
    )
    redis_username: str | None = Field(None, description="ACL user, if the URL names none")
    redis_password: SecretStr | None = Field(None, description="password, if the URL has none")
    redis_ca_file: Path | None = Field(
        None, description="PEM of the certification authority of a rediss:// server; by default those of the system"
    )
    redis_certificate_file: Path | None = Field(None, description="PEM of our own certificate, for mutual TLS")
    redis_key_file: Path | None = Field(None, description="PEM of its key")
    redis_sentinel_username: str | None = Field(None, description="user of the Sentinels, if they have one")
    redis_sentinel_password: SecretStr | None = Field(None, description="password of the Sentinels")
    redis: RedisSetting = Field(
        description="redis://host:port/0, redis+cluster://host:port,… or redis+sentinel://host:port,…/service; "
        "rediss for TLS"
    )

    @field_validator("redis")
    @classmethod
    def _redis_with_access(cls, address: RedisAddress, info: ValidationInfo) -> RedisAddress:
        """The address carries what is needed to use it, so that nobody can forget the one or the other."""
        if address.access != RedisAccess():  # made in the program, whole
            return address
        given = info.data
        access = RedisAccess(
            prefix=given.get("redis_prefix", ""),
            username=given.get("redis_username"),
            password=_secret(given.get("redis_password")),
            ca_file=_there(given.get("redis_ca_file")),
            certificate_file=_there(given.get("redis_certificate_file")),
            key_file=_there(given.get("redis_key_file")),
            sentinel_username=given.get("redis_sentinel_username"),
            sentinel_password=_secret(given.get("redis_sentinel_password")),
        )
        return dataclasses.replace(address, access=access)


class UsesStore(Environment):
    """For services that write or load snapshots."""

    store: StoreSetting = Field(
        description="s3://bucket/prefix?endpoint=http://host:port&region=us-east-1, or file:///folder"
    )


class UsesTokens(Environment):
    """For services that sign or check impression tokens."""

    token_keys: SecretStr = Field(description="id:hex,id:hex; the first key signs, all of them verify")


COMMON: tuple[type[Environment], ...] = (ServiceSettings, UsesKafka, UsesRedis, UsesStore, UsesTokens)
OF_ONE_SERVICE = {
    "ack_timeout_s",
    "archive_key",
    "batch",
    "client_id",
    "import_handover_s",
    "import_jobs",
    "import_local_files",
    "import_redis_timeout_s",
    "keep_models",
    "max_waiting_bytes",
    "model_cache",
    "ordinal",
    "provider_ca",
    "redis_timeout_s",
    "replicas",
    "session_timeout_s",
    "snapshots_kept",
}
"""Settings that one service or two have for themselves: the others may find them in an environment that all share."""
OF_THE_COMMAND_LINE = {"BANDITMESH_CACHE"}
"""What services may find in their environment and do not read."""
SettingsT = TypeVar("SettingsT", bound=Environment)


def variable(field: str) -> str:
    """The environment variable of a settings field."""
    return PREFIX + field.upper()


def variables_beside(kind: type[Environment], field: str) -> list[str]:
    """The variables of a settings group without that of ``field``."""
    return [variable(name) for name in kind.model_fields if name != field]


def load_settings(kind: type[SettingsT], overrides: Mapping[str, Any] | None = None) -> SettingsT:
    """Settings from the environment, ``overrides`` (by field name, from the command line) first.

    Raises ConfigurationError with one line for each wrong variable: its name, its value unless it is a secret, the
    reason.
    """
    try:
        return kind(**{name: value for name, value in (overrides or {}).items() if value is not None})
    except ValidationError as error:
        problems = tuple(_problem(kind, each, overrides or {}) for each in error.errors())
    raise ConfigurationError(
        "the settings are not valid:", problems, hint="--help lists every variable with its meaning"
    )


def unknown_variables(kind: type[Environment], environ: Mapping[str, str] = os.environ) -> list[str]:
    """BANDITMESH_ variables that no service knows: most likely a typing error."""
    fields = {name for group in (kind, *COMMON) for name in group.model_fields}
    known = {variable(name) for name in fields | OF_ONE_SERVICE} | OF_THE_COMMAND_LINE
    return sorted(name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known)


def describe(kind: type[Environment]) -> Iterator[tuple[str, str, str]]:
    """(variable, default or "required", meaning) of each setting, for ``--help`` and the operations manual."""
    for name, field in kind.model_fields.items():
        default = "required" if field.is_required() else str(field.default)
        yield variable(name), default, field.description or ""


def _problem(kind: type[Environment], error: Any, overrides: Mapping[str, Any]) -> str:
    field = str(error["loc"][0]) if error["loc"] else ""
    name = f"--{field.replace('_', '-')}" if overrides.get(field) is not None else variable(field)
    if error["type"] == "missing":
        description = kind.model_fields[field].description
        return f"{name} is not set ({description})"
    reason = str(error["msg"]).removeprefix("Value error, ")
    annotation = kind.model_fields[field].annotation if field in kind.model_fields else None
    value = "(hidden)" if annotation is SecretStr else repr(shown(str(error["input"])))[:SHOWN_VALUE_CHARACTERS]
    return f"{name} = {value}: {reason}"
