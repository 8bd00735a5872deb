"""What is written for users of a mesh, tried on a mesh that runs."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from banditmesh.local.stack import LocalMesh
from tests.deploy.checkout import ROOT
from tests.support.whole_mesh import CONTENTS, import_everything, running_mesh

pytestmark = pytest.mark.timeout(400)
PAGE = (ROOT / "docs" / "clients.md").read_text()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """A mesh with its mappings imported."""
    folder = tmp_path_factory.mktemp("mesh")
    with running_mesh(folder) as mesh:
        asyncio.run(import_everything(mesh, folder))
        yield mesh


def section(name: str) -> str:
    """A section of the page."""
    return next(part for part in PAGE.split("\n## ") if part.startswith(f"{name}\n"))


def block(text: str, language: str) -> str:
    """The one block of code in this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found)


def run_lines(lines: str, mesh: LocalMesh, folder: Path) -> str:
    """Run the lines of a page as a user does, with this mesh instead of the names in them; return what they print."""
    for target, service in (("dns:///engine:50052", "crs_engine"), ("dns:///tracker:50053", "tracker")):
        assert target in lines
        lines = lines.replace(target, f"dns:///{mesh.addresses[service]}")
    lines = lines.replace("talk-head-jp ada", "traffic u7")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # has buf
    words = ["bash", "-euxc", lines]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_shown_and_clicked(printed: str) -> None:
    service, content = re.findall(r"^show (\S+) (\S+)$", printed, re.MULTILINE)[0]
    assert CONTENTS[service] == content
    assert printed.count("EVENT_STATUS_ACCEPTED") == 2


def test_the_node_client_of_the_page_selects_and_tracks(mesh: LocalMesh, tmp_path: Path) -> None:
    text = section("Node")
    (tmp_path / "client.mjs").write_text(block(text, "js"))
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    assert_shown_and_clicked(run_lines(block(text, "sh"), mesh, tmp_path))


def test_the_go_client_of_the_page_selects_and_tracks(mesh: LocalMesh, tmp_path: Path) -> None:
    text = section("Go")
    (tmp_path / "main.go").write_text(block(text, "go"))
    (tmp_path / "buf.gen.yaml").write_text(block(text, "yaml"))
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    assert_shown_and_clicked(run_lines(block(text, "sh"), mesh, tmp_path))
