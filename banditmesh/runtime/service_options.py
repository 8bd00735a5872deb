"""Sections ``services`` and ``importing`` of ``mesh.yaml``: whose contents there are, and how they come in."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from banditmesh.bandits.durations import Positive
from banditmesh.runtime.section import Name, Section, Share, each_once

_FILES_PREFIX = re.compile(r"(file://(localhost)?/|(hdfs|s3)://[^/?#@]+(/|$))[^?#]*")
_HOST_PORT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})")
_PROVIDERS = "write it like dns:///weather:50051 or weather:50051"


def _files_prefix(value: str) -> str:
    if not _FILES_PREFIX.fullmatch(value):
        raise ValueError(
            f"{value!r} is no folder of files; write it like hdfs://namenode:8020/exports, s3://bucket/exports or "
            "file:///exports"
        )
    return value


def _grpc_target(value: str) -> str:
    if value.startswith(("unix:", "xds:")):
        return value
    if value.startswith(("http:", "https:")):
        raise ValueError(f"{value!r} is a URL, and a Data Provider speaks gRPC: {_PROVIDERS}")
    scheme, colon, rest = value.partition("//")
    names = value.removeprefix("ipv4:").removeprefix("ipv6:").split(",") if not colon else [rest.partition("/")[2]]
    for name in names:
        found = _HOST_PORT.fullmatch(name)
        if (colon and scheme != "dns:") or not found or not 0 < int(found[2]) < 65_536:
            raise ValueError(f"{value!r} is no gRPC address with a host and a port; {_PROVIDERS}")
    return value


FilesPrefix = Annotated[str, AfterValidator(_files_prefix)]
GrpcTarget = Annotated[str, AfterValidator(_grpc_target)]


class Service(Section):
    """A service that wants attention."""

    logics: Annotated[list[Name], AfterValidator(each_once)] = Field(
        min_length=1, description="The service's own recommendation logics, each with a mapping of its own."
    )
    provider: GrpcTarget | None = Field(
        None, description="gRPC address of its Data Provider, such as dns:///weather:50051."
    )
    refresh_every: Positive | None = Field(
        None, description="How often all its known contents are asked for again; absent: never."
    )
    refresh_max_missing: Share = Field(
        0.5,
        description="When more than this share of its contents is missing from one refresh, none of them is dropped.",
    )
    mapping_max_missing: Share | None = Field(
        None,
        description="A new version of a mapping fails when it has so much fewer rows than the live one, as a share; "
        "absent: any number will do.",
    )


class Importing(Section):
    """The importer."""

    max_rejected: Share = Field(0.01, description="A job fails when more than this share of its rows is broken.")
    profiles_max_missing: Share | None = Field(
        None, description="As a service's mapping_max_missing, for the profiles."
    )
    max_candidates: int = Field(
        100, ge=1, le=1000, description="Candidates of one user in one mapping; a row with more is broken."
    )
    mapping_ttl: Positive = Field(
        7 * 86400.0, description="Candidates and profiles that are not imported again expire."
    )
    content_ttl: Positive = Field(30 * 86400.0, description="Contents that no import or refresh confirms expire.")
    lease: Positive = Field(15.0, description="A job whose importer is silent this long is taken over.")
    batch_rows: int = Field(2000, ge=1, le=100_000, description="Rows that are read and written together.")
    provider_timeout: Positive = Field(5.0, description="Deadline of one GetContents call.")
    rejects_uri: FilesPrefix | None = Field(
        None, description="Folder for rejects files; absent: rejects/ in the store."
    )
    allowed_uris: list[FilesPrefix] | None = Field(
        None,
        description="Folders from which files are imported: hdfs://…, s3://… or file:///…; absent: all of hdfs and s3, "
        "and no local file.",
    )
