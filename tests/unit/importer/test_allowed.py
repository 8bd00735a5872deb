"""What ``importing.allowed_uris`` may say."""

from __future__ import annotations

import pytest

from banditmesh.runtime.errors import ConfigurationError, PermissionDenied
from banditmesh.runtime.mesh import parse_mesh
from services.importer.sources.allowed import AllowedUris
from services.importer.sources.filesystems import parse_uri


@pytest.mark.parametrize("value", ["ftp://host/x", "exports", "s3://", "s3://key@bucket/x", "hdfs:///x"])
def test_a_prefix_that_is_no_uri_is_a_wrong_configuration(value: str) -> None:
    mesh = "services: {a: {logics: [b]}}\nplacements: {p: {sources: [a/b]}}\n"

    with pytest.raises(ConfigurationError, match=r"importing\.allowed_uris\.0.*s3://bucket/exports"):
        parse_mesh(f"{mesh}importing: {{allowed_uris: ['{value}']}}")


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("s3://exports", "s3://exports/team/m.csv"),
        ("s3://exports/team/", "s3://exports/team/m.csv"),
        ("hdfs://namenode:8020", "hdfs://NameNode:8020/m.csv"),
        ("file:///", "file:///m.csv"),
        ("file:///m.csv", "file:///m.csv"),
    ],
)
def test_a_prefix_allows_itself_and_what_is_below_it(prefix: str, uri: str) -> None:
    AllowedUris([prefix]).check(parse_uri(uri))


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(PermissionDenied, match="allowed: nothing"):
        AllowedUris([]).check(parse_uri("s3://exports/m.csv"))
