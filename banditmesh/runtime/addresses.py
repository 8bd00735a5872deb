"""Addresses of the servers that a service talks to, parsed once, when the settings are read."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import BeforeValidator
from pydantic_settings import NoDecode


def shown(address: str) -> str:
    """An address, or what was meant to be one, as it may be printed: without user and password."""
    return re.sub(r"^([\w+.-]*://)?.*@", r"\1***@", address, flags=re.DOTALL)


@dataclass(frozen=True)
class HostPort:
    """A TCP address; port 0 asks the system for a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """``host:port`` or ``[ipv6]:port``. Raises ValueError with the reason."""
        host, colon, port = text.strip().rpartition(":")
        if not colon or not host:
            raise ValueError("expected host:port")
        if re.search(r"[/@?#\s]", host):
            raise ValueError("expected host:port, without a scheme, a user or a path")
        if not port.isdecimal() or int(port) > 65_535:
            raise ValueError(f"port {port!r} is not a number from 0 to 65535")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


@dataclass(frozen=True)
class KafkaAccess:
    """How brokers are spoken to, in Kafka's own words (``security.protocol``, ``sasl.mechanism``)."""

    protocol: SecurityProtocol = "PLAINTEXT"
    mechanism: SaslMechanism = "PLAIN"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = None
    """Where OAUTHBEARER tokens come from; see :mod:`banditmesh.runtime.kafka.tokens`."""
    ca_file: Path | None = None
    """PEM; None: the system's certification authorities."""
    certificate_file: Path | None = None
    """PEM of the client's own certificate, for mutual TLS."""
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)

    def problem(self) -> str | None:
        """What is missing or contradicts itself, None when it is whole."""
        if self.protocol.startswith("SASL_"):
            if self.mechanism == "OAUTHBEARER":
                return None if self.token else "OAUTHBEARER needs BANDITMESH_KAFKA_TOKEN: where tokens come from"
            if self.username is None or self.password is None:
                return f"{self.mechanism} needs BANDITMESH_KAFKA_USERNAME and BANDITMESH_KAFKA_PASSWORD"
        elif self.username is not None or self.token is not None:
            return f"{self.protocol} has no login: set BANDITMESH_KAFKA_SECURITY_PROTOCOL to SASL_SSL"
        if (self.certificate_file is None) != (self.key_file is None):
            return "a certificate needs its key: set BANDITMESH_KAFKA_CERTIFICATE_FILE and BANDITMESH_KAFKA_KEY_FILE"
        if not self.protocol.endswith("SSL") and (self.ca_file or self.certificate_file):
            return f"{self.protocol} has no certificates: set BANDITMESH_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL"
        return None


@dataclass(frozen=True)
class KafkaAddress:
    """Bootstrap servers, and how they are spoken to."""

    servers: tuple[HostPort, ...]
    access: KafkaAccess = KafkaAccess()

    @classmethod
    def parse(cls, text: str) -> KafkaAddress:
        """``host:port,host:port``. Raises ValueError with the reason."""
        if "@" in text:
            raise ValueError("user and password belong into BANDITMESH_KAFKA_USERNAME and BANDITMESH_KAFKA_PASSWORD")
        return cls(tuple(HostPort.parse(part) for part in text.split(",")))

    def __str__(self) -> str:
        """For messages: the servers alone."""
        return ",".join(map(str, self.servers))


REDIS_PREFIX = r"^[A-Za-z0-9_.:-]{0,64}$"
"""What a prefix of keys may be: a brace would move keys to another slot, a ``*`` would mean another thing in an ACL."""
REDIS_PORT = 6379
SENTINEL_PORT = 26379


@dataclass(frozen=True)
class RedisAccess:
    """What is needed beside the address; passwords that stand in the URL win over these."""

    prefix: str = ""
    """Stands before every key, so that several meshes can share one Redis."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """PEM; None: the system's certification authorities."""
    certificate_file: Path | None = None
    """PEM of the client's own certificate, for a server that asks for one."""
    key_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RedisAddress:
    """One Redis or Valkey node, the way into a Cluster, or the Sentinels that know which node is the primary."""

    url: str = field(repr=False)
    """As it was given, with the password. Never log it, log ``str(address)``."""
    kind: Literal["node", "cluster", "sentinel"]
    nodes: tuple[HostPort, ...]
    """The node; those of the Cluster that are asked first; the Sentinels."""
    tls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    service: str = ""
    """The name by which the Sentinels know the primary."""
    options: tuple[tuple[str, str], ...] = ()
    """What follows the ``?`` of the URL: settings of redis-py's connections."""
    access: RedisAccess = RedisAccess()

    @property
    def cluster(self) -> bool:
        """Whether it is a Cluster."""
        return self.kind == "cluster"

    @classmethod
    def parse(cls, text: str) -> RedisAddress:
        """``redis://[user:password@]host:port[/db]``, ``redis+cluster://host:port,host:port``,
        ``redis+sentinel://host:port,host:port/service[/db]``; ``rediss…`` for TLS.

        Raises ValueError with the reason.
        """
        text = text.strip()
        parts = urlsplit(text)
        scheme, plus, suffix = parts.scheme.partition("+")
        if scheme not in ("redis", "rediss") or (plus and suffix not in ("cluster", "sentinel")):
            raise ValueError(
                "expected redis:// or rediss://, redis+cluster:// or rediss+cluster://, "
                "redis+sentinel:// or rediss+sentinel://"
            )
        kind: Literal["node", "cluster", "sentinel"] = suffix or "node"  # type: ignore[assignment]
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        default_port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
        nodes = tuple(_redis_node(part, default_port) for part in hosts.split(","))
        if kind == "node" and len(nodes) > 1:
            raise ValueError("several hosts: expected redis+cluster:// or redis+sentinel://")
        service, database = _redis_path(kind, parts.path)
        return cls(
            text,
            kind,
            nodes,
            tls=scheme == "rediss",
            username=unquote(user) or None,
            password=unquote(password) or None,
            database=database,
            service=service,
            options=tuple(parse_qsl(parts.query, keep_blank_values=True)),
        )

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _redis_node(text: str, default_port: int) -> HostPort:
    if not text:
        raise ValueError("no host in the URL")
    has_port = ":" in text.rpartition("]")[2]
    return HostPort.parse(text if has_port else f"{text}:{default_port}")


def _redis_path(kind: str, path: str) -> tuple[str, int]:
    """The Sentinels' service and the database of a URL's path."""
    words = [unquote(word) for word in path.split("/") if word]
    if kind == "cluster" and words:
        raise ValueError("a cluster has no numbered databases: leave out the path")
    service = words.pop(0) if kind == "sentinel" and words else ""
    if kind == "sentinel" and not service:
        raise ValueError("the service that the Sentinels watch is missing: redis+sentinel://host:port/mymaster")
    if len(words) > 1 or (words and not words[0].isdecimal()):
        raise ValueError(f"the database {'/'.join(words)!r} is not a number")
    return service, int(words[0]) if words else 0


@dataclass(frozen=True)
class S3Address:
    """A prefix in a bucket; credentials come from the usual AWS environment, never from the URL."""

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    style: Literal["auto", "path", "virtual"] = "auto"
    """Where the bucket stands in a request: in its path, or before the host. ``auto``: as Amazon wants it, and in the
    path at an endpoint of one's own."""
    ca_file: Path | None = None
    """PEM of the endpoint's certification authority; None: ``AWS_CA_BUNDLE``, or the system's."""

    def __str__(self) -> str:
        """The URL that it was parsed from, in its full form."""
        options = {"endpoint": self.endpoint} if self.endpoint else {}
        options["region"] = self.region
        if self.style != "auto":
            options["style"] = self.style
        if self.ca_file is not None:
            options["ca"] = str(self.ca_file)
        query = urlencode(options, safe=":/")
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + f"?{query}"


@dataclass(frozen=True)
class FileAddress:
    """A folder of this machine."""

    folder: Path

    def __str__(self) -> str:
        return self.folder.as_uri()


StoreAddress = S3Address | FileAddress


def parse_store(text: str) -> StoreAddress:
    """``s3://bucket/prefix?endpoint=http://host:port&region=us-east-1&style=path&ca=/file.pem`` or ``file:///folder``.

    Raises ValueError with the reason. Without a region it is that of the AWS environment.
    """
    parts = urlsplit(text.strip())
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError("expected file:///absolute/folder (three slashes)")
        return FileAddress(Path(unquote(parts.path)))
    if parts.scheme != "s3":
        raise ValueError("expected s3://bucket/prefix or file:///folder")
    if not parts.netloc:
        raise ValueError("no bucket in the URL")
    if "@" in parts.netloc:
        raise ValueError("credentials belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, not into the URL")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = options.keys() - {"endpoint", "region", "style", "ca"}
    if unknown:
        raise ValueError(f"unknown option {sorted(unknown)[0]!r}; there are endpoint, region, style and ca")
    endpoint = options.get("endpoint")
    if endpoint is not None and urlsplit(endpoint).scheme not in ("http", "https"):
        raise ValueError("endpoint is not an http:// or https:// URL")
    style = options.get("style", "auto")
    if style not in ("auto", "path", "virtual"):
        raise ValueError(f"style {style!r} is none; there are auto, path and virtual")
    ca_file = Path(options["ca"]) if options.get("ca") else None
    if ca_file is not None and not os.access(ca_file, os.R_OK):
        raise ValueError(f"the file {options['ca']!r} cannot be read")
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return S3Address(
        parts.netloc,
        parts.path.strip("/"),
        endpoint,
        region or "us-east-1",
        style,  # type: ignore[arg-type]  # checked above
        ca_file,
    )


def _parsed(kind: type, parse: object) -> BeforeValidator:
    """Parses text and lets an address that is one already pass."""

    def validate(value: object) -> object:
        return parse(value) if isinstance(value, str) else value  # type: ignore[operator]

    return BeforeValidator(validate)


HostPortSetting = Annotated[HostPort, NoDecode, _parsed(HostPort, HostPort.parse)]
KafkaSetting = Annotated[KafkaAddress, NoDecode, _parsed(KafkaAddress, KafkaAddress.parse)]
OptionalKafkaSetting = Annotated[KafkaAddress | None, NoDecode, _parsed(KafkaAddress, KafkaAddress.parse)]
RedisSetting = Annotated[RedisAddress, NoDecode, _parsed(RedisAddress, RedisAddress.parse)]
StoreSetting = Annotated[StoreAddress, NoDecode, _parsed(object, parse_store)]
"""Field types for settings: text from the environment, an address in the program."""
