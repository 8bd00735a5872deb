"""Addresses of the servers that a service talks to, parsed once, when the settings are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import BeforeValidator
from pydantic_settings import NoDecode


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
        if not port.isdecimal() or int(port) > 65_535:
            raise ValueError(f"port {port!r} is not a number from 0 to 65535")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class KafkaAddress:
    """Bootstrap servers."""

    servers: tuple[HostPort, ...]

    @classmethod
    def parse(cls, text: str) -> KafkaAddress:
        """``host:port,host:port``. Raises ValueError with the reason."""
        return cls(tuple(HostPort.parse(part) for part in text.split(",")))

    def __str__(self) -> str:
        """The form that aiokafka's ``bootstrap_servers`` takes."""
        return ",".join(map(str, self.servers))


@dataclass(frozen=True)
class RedisAddress:
    """A single Redis or Valkey node, or the way into a Cluster."""

    url: str = field(repr=False)
    """As it was given, with the password. Never log it, log ``str(address)``."""
    cluster: bool

    @classmethod
    def parse(cls, text: str) -> RedisAddress:
        """``redis://[user:password@]host:port[/db]``, ``rediss://`` for TLS, ``redis+cluster://`` or ``rediss+cluster://``.

        Raises ValueError with the reason.
        """
        parts = urlsplit(text.strip())
        scheme, plus, kind = parts.scheme.partition("+")
        if scheme not in ("redis", "rediss") or (plus and kind != "cluster"):
            raise ValueError("expected redis://, rediss://, redis+cluster:// or rediss+cluster://")
        if not parts.hostname:
            raise ValueError("no host in the URL")
        _ = parts.port  # ValueError when it is not a port
        cluster = bool(plus)
        if cluster and parts.path.strip("/"):
            raise ValueError("a cluster has no numbered databases: leave out the path")
        return cls(text.strip(), cluster)

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@dataclass(frozen=True)
class S3Address:
    """A prefix in a bucket; credentials come from the usual AWS environment, never from the URL."""

    bucket: str
    prefix: str
    endpoint: str | None
    region: str

    def __str__(self) -> str:
        """The URL that it was parsed from, in its full form."""
        options = {"endpoint": self.endpoint} if self.endpoint else {}
        query = urlencode({**options, "region": self.region}, safe=":/")
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + f"?{query}"


@dataclass(frozen=True)
class FileAddress:
    """A folder of this machine."""

    folder: Path

    def __str__(self) -> str:
        return self.folder.as_uri()


StoreAddress = S3Address | FileAddress


def parse_store(text: str) -> StoreAddress:
    """``s3://bucket/prefix?endpoint=http://host:port&region=us-east-1`` or ``file:///folder``. Raises ValueError with
    the reason.
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
    unknown = options.keys() - {"endpoint", "region"}
    if unknown:
        raise ValueError(f"unknown option {sorted(unknown)[0]!r}; there are endpoint and region")
    endpoint = options.get("endpoint")
    if endpoint is not None and urlsplit(endpoint).scheme not in ("http", "https"):
        raise ValueError("endpoint is not an http:// or https:// URL")
    return S3Address(parts.netloc, parts.path.strip("/"), endpoint, options.get("region", "us-east-1"))


def _parsed(kind: type, parse: object) -> BeforeValidator:
    """Parses text and lets an address that is one already pass."""

    def validate(value: object) -> object:
        return parse(value) if isinstance(value, str) else value  # type: ignore[operator]

    return BeforeValidator(validate)


HostPortSetting = Annotated[HostPort, NoDecode, _parsed(HostPort, HostPort.parse)]
KafkaSetting = Annotated[KafkaAddress, NoDecode, _parsed(KafkaAddress, KafkaAddress.parse)]
RedisSetting = Annotated[RedisAddress, NoDecode, _parsed(RedisAddress, RedisAddress.parse)]
StoreSetting = Annotated[StoreAddress, NoDecode, _parsed(object, parse_store)]
"""Field types for settings: text from the environment, an address in the program."""
