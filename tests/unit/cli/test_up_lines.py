"""The commands that ``up`` prints for a mesh.yaml of one's own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from banditmesh.cli.grpcurl import Lines, grpcurl_lines
from banditmesh.runtime.mesh import Mesh
from services.importer.sources.allowed import AllowedUris
from services.importer.sources.filesystems import parse_uri

ADDRESSES = dict.fromkeys(("importer", "crs_engine", "tracker", "joiner", "learner"), "localhost:1")


def imports(allowed: list[str] | None) -> Lines:
    importing = {} if allowed is None else {"allowed_uris": allowed}
    mesh = Mesh.model_validate(
        {
            "services": {"shop": {"logics": ["best"]}},
            "placements": {
                "home": {
                    "sources": ["shop/best"],
                    "eligible": "used_services",
                    "experiment": {"variants": {"a": {"weight": 1, "policy": "random"}}},
                }
            },
            "importing": importing,
        }
    )
    return grpcurl_lines(ADDRESSES, own=mesh)[1]


@pytest.mark.parametrize(
    "allowed",
    [
        None,
        ["file:///srv/a%20folder/"],
        ["s3://bucket/in/", "file:///srv/in"],
        ["s3://bucket/in"],
        ["hdfs://nn:8020/x"],
    ],
)
def test_what_is_printed_may_be_imported(allowed: list[str] | None) -> None:
    lines = imports(allowed)
    uris = re.findall(r'"uri": "([^"]+)"', "\n".join(lines.commands))
    assert len(uris) == 2  # profiles and a mapping
    for uri in uris:
        AllowedUris(allowed, local_files=True).check(parse_uri(uri))
    local = any(each.startswith("file:") for each in allowed or ["file:"])
    assert ("lets no local file in" in lines.heading) is not local
    assert any(command.startswith("printf") for command in lines.commands) is local


def test_the_files_are_written_where_the_import_looks(tmp_path: Path) -> None:
    folder = tmp_path / "a folder" / "in"
    for command in imports([folder.as_uri()]).commands:
        if not command.startswith("grpcurl") and "grpcurl -plaintext" not in command:
            subprocess.run(command, shell=True, check=True)
    assert (folder / "shop-best.csv").read_text() == "user_id,contents\nada,shop-1|shop-2\n"
    assert (folder / "profiles.csv").read_text() == "user_id,used_services\nada,shop\n"


def test_where_nothing_may_be_imported_that_is_said() -> None:
    lines = imports([])
    assert "nothing can be imported" in lines.heading
    assert not [command for command in lines.commands if "Notify" in command]
