"""What is written for users of a mesh, tried on a mesh that runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest

from banditmesh.local.stack import LocalMesh
from tests.deploy.checkout import ROOT
from tests.deploy.tools import CHART, GO_BUILD
from tests.support.command import banditmesh
from tests.support.whole_mesh import CONTENTS, import_everything, running_mesh

pytestmark = pytest.mark.timeout(900)  # the first time Go and Node fetch and compile
ONLY_WITH_TLS = {
    "banditmesh_tls_certificate_expires_timestamp_seconds",
    "banditmesh_tls_certificate_issued_timestamp_seconds",
}
"""What a mesh without certificates does not serve; `tests/integration/runtime/test_tls.py` reads it where there are."""
PAGE = (ROOT / "docs" / "clients.md").read_text()
COLOUR = re.compile("\x1b\\[[0-9;]*m")
"""Maven, though told -B, puts such a word before what a program prints first."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """A mesh with its mappings imported."""
    folder = tmp_path_factory.mktemp("mesh")
    with running_mesh(folder) as mesh:
        asyncio.run(import_everything(mesh, folder))
        yield mesh


def test_verify_goes_once_around_the_loop(mesh: LocalMesh) -> None:
    """What `helm test` runs."""
    words = ["--engine", mesh.addresses["crs_engine"], "--tracker", mesh.addresses["tracker"], "--placement", "outages"]
    imported = ["--importer", mesh.addresses["importer"], "--import-into", "comics/new-volume"]
    done = banditmesh("verify", *words, *imported, mesh.config, env=mesh.settings, timeout_s=150)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line.split("s  ", 1)[1] for line in done.stdout.splitlines()]
    assert said[:2] == [
        "imported a mapping of 1 row into comics/new-volume",
        "selected comics/banditmesh-hello, out of: policy",
    ]
    assert said[-1].startswith("the engine has loaded what the learner made of it")


def test_verify_names_the_step_at_which_a_loop_stands(mesh: LocalMesh) -> None:
    nobody = "127.0.0.1:1"
    words = ["--engine", nobody, "--tracker", nobody, "--placement", "outages", "--timeout", "2"]
    done = banditmesh("verify", *words, mesh.config, env=mesh.settings)
    assert done.returncode == 1
    assert "within 2 s; it stands at: read the model's version" in done.stderr


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
    environment = {**os.environ, **GO_BUILD, "PATH": path}
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return COLOUR.sub("", done.stdout)


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


@pytest.mark.jvm
@pytest.mark.timeout(1500)  # Maven fetches and Kotlin compiles for minutes, once
@pytest.mark.parametrize(
    ("language", "fence", "file"), [("Java", "java", "java/Shop.java"), ("Kotlin", "kotlin", "kotlin/Shop.kt")]
)
def test_the_jvm_clients_of_the_page_select_and_track(
    language: str, fence: str, file: str, mesh: LocalMesh, tmp_path: Path
) -> None:
    text = section(language)
    source = tmp_path / "src" / "main" / file
    source.parent.mkdir(parents=True)
    source.write_text(block(text, fence))
    (tmp_path / "pom.xml").write_text(block(text, "xml"))
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    assert_shown_and_clicked(run_lines(block(text, "sh"), mesh, tmp_path))


def named_metrics() -> dict[str, set[str]]:
    """The metrics that rules and dashboards name, and the labels that they select or group by, without what Prometheus
    itself adds."""
    texts = [(CHART / "files" / "rules.yaml").read_text()]
    for path in (CHART / "files" / "dashboards").glob("*.json"):
        panels = json.loads(path.read_text())["panels"]
        texts += [target["expr"] for panel in panels for target in panel["targets"]]
    found: dict[str, set[str]] = {}
    for text in texts:
        for metric, labels in re.findall(r"\b((?:banditmesh|process)_[a-z_]+)(?:\{([^}]*)\})?", text):
            found.setdefault(metric, set()).update(re.findall(r"(\w+)\s*(?:=~|!=|=)", labels or ""))
    return found


def served_metrics(mesh: LocalMesh) -> str:
    """What the five services serve, together."""
    with ThreadPoolExecutor() as pool:
        pages = pool.map(
            lambda service: urlopen(service.metrics_url, timeout=10).read().decode(), mesh.services.values()
        )
        return "\n".join(pages)


def test_every_metric_that_a_rule_or_a_dashboard_names_is_served(mesh: LocalMesh) -> None:
    page = served_metrics(mesh)
    declared = set(re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE))
    named = named_metrics()
    assert len(named) > 50
    missing = {name for name in named if re.sub(r"_(bucket|count|sum)$", "", name) not in declared}
    assert missing == ONLY_WITH_TLS


def test_every_label_that_a_rule_or_a_dashboard_selects_is_on_the_metric(mesh: LocalMesh) -> None:
    """Of metrics that have a series by now; a counter with labels has none before its first event."""
    page = served_metrics(mesh)
    for name, labels in named_metrics().items():
        series = re.findall(rf"^{name}\{{(.*)\}} ", page, re.MULTILINE)
        if series:
            has = set(re.findall(r'(\w+)="', series[0])) | {"mesh", "component", "pod"}
            assert labels <= has, f"{name} has {has}"
