"""The documentation says what is true."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from banditmesh.runtime.mesh import parse_mesh

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_reference_of_mesh_yaml_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("mesh_reference", ROOT / "tools" / "mesh_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "mesh-yaml.md").read_text() == module.reference(), "run: python tools/mesh_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_mesh_yaml_that_is_shown_is_valid(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        if "placements:" in block and "services:" in block:
            parse_mesh(block, origin=page.name)


def test_files_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:services|banditmesh|runtime|tests)/[\w/]+\.py)`", text)
    assert named
    missing = [path for path in named if not ((ROOT / path).exists() or (ROOT / "banditmesh" / path).exists())]
    assert not missing


def test_every_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    names = re.findall(r'^    "([a-z][a-z0-9-]*)', project, re.MULTILINE)
    missing = [
        name
        for name in names
        if name.removeprefix("types-") not in reasons and not name.startswith(("types-", "pytest-"))
    ]
    assert not missing
