"""The file system behind a URI: ``file://``, ``s3://`` and ``hdfs://`` behind pyarrow's one interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from banditmesh.runtime.addresses import S3Address, StoreAddress
from banditmesh.runtime.errors import InvalidArgument

SCHEMES = ("file", "s3", "hdfs")
MAX_URI_BYTES = 1024
CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 30.0
S3_ATTEMPTS = 4


@dataclass(frozen=True)
class S3Access:
    """How to reach S3; credentials come from the usual ``AWS_*`` environment.

    Attributes:
        endpoint: ``http(s)://host:port``; None: Amazon's.
        region: Such as ``us-east-1``.
    """

    endpoint: str | None
    region: str

    @classmethod
    def of(cls, store: StoreAddress, environ: Mapping[str, str] = os.environ) -> S3Access:
        """Take the mesh's own store, when that is on S3, and the AWS environment otherwise."""
        if isinstance(store, S3Address):
            return cls(store.endpoint, store.region)
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return cls(endpoint or None, region)


@dataclass(frozen=True)
class Location:
    """A parsed URI.

    Attributes:
        scheme: One of :data:`SCHEMES`.
        host: The bucket of ``s3``, ``host:port`` of ``hdfs``, empty for ``file``.
        path: Absolute; below the bucket without a leading slash.
    """

    scheme: str
    host: str
    path: str

    @property
    def name(self) -> str:
        """What the file system calls it."""
        return f"{self.host}/{self.path}".rstrip("/") if self.scheme == "s3" else self.path

    def uri(self, name: str) -> str:
        """The URI of a file that the file system calls ``name``."""
        return f"{self.scheme}://{name}" if self.scheme == "s3" else f"{self.scheme}://{self.host}{name}"


def parse_uri(uri: str, *, whole: bool = False) -> Location:
    """Check a URI without touching what it names.

    Args:
        uri: As somebody wrote it.
        whole: Whether it may name a whole bucket or file system.

    Raises:
        InvalidArgument: It is empty, too long, or not one of the schemes.
    """
    examples = "write it like hdfs://namenode:8020/folder, s3://bucket/folder or file:///folder"
    if not uri:
        raise InvalidArgument("the uri is empty", field="uri", hint=examples)
    if len(uri.encode()) > MAX_URI_BYTES:
        raise InvalidArgument(f"the uri is longer than {MAX_URI_BYTES} bytes", field="uri", value=uri)
    if not uri.isprintable():  # urlsplit would drop line breaks and tabs, silently
        raise InvalidArgument("the uri holds a control character", field="uri", value=uri, hint=examples)
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise InvalidArgument(f"the uri cannot be read: {error}", field="uri", value=uri, hint=examples) from error
    if parts.scheme not in SCHEMES:
        supported = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise InvalidArgument(
            f"unsupported scheme {parts.scheme!r}; supported are {supported}", field="uri", value=uri, hint=examples
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidArgument(
            "the uri holds a query, a fragment or credentials",
            field="uri",
            hint="the S3 endpoint, region and credentials are the importer's settings",
        )
    path = unquote(parts.path)
    if ".." in path.split("/") or not path.isprintable():
        raise InvalidArgument("the uri holds '..' or a control character", field="uri", value=uri, hint=examples)
    if parts.scheme == "s3" and "//" in path.strip("/"):
        raise InvalidArgument(
            "the uri has two slashes in a row, which S3 takes for a folder without a name",
            field="uri",
            value=uri,
            hint="leave one out; keys that have both cannot be read one by one: name the folder above them",
        )
    if parts.scheme == "file" and (parts.netloc not in ("", "localhost") or not path.startswith("/")):
        raise InvalidArgument("a file uri has three slashes: file:///folder", field="uri", value=uri)
    if parts.scheme in ("s3", "hdfs") and not (parts.netloc and (whole or path.strip("/"))):
        raise InvalidArgument("the uri names no file or folder", field="uri", value=uri, hint=examples)
    host = "" if parts.scheme == "file" else parts.netloc
    path = path.strip("/") if parts.scheme == "s3" else "/" + path.strip("/")
    return Location(parts.scheme, host, path)


def open_filesystem(location: Location, s3: S3Access) -> fs.FileSystem:
    """Open the file system of a location."""
    if location.scheme == "file":
        return fs.LocalFileSystem()
    if location.scheme == "s3":
        return _s3(s3)
    return _hdfs(location.host)


def _s3(access: S3Access) -> fs.FileSystem:
    scheme, _, endpoint = (access.endpoint or "https://").partition("://")
    return fs.S3FileSystem(
        endpoint_override=endpoint or None,
        scheme=scheme,
        region=access.region,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS),
    )


def _hdfs(host: str) -> fs.FileSystem:
    # Only here: the extension module starts threads of its own when it is loaded.
    from hdfs_native.fsspec import HdfsFileSystem

    name, colon, port = host.partition(":")
    native = HdfsFileSystem(name, int(port) if colon else None, skip_instance_cache=True)
    return fs.PyFileSystem(fs.FSSpecHandler(native))
