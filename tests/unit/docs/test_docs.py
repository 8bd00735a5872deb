"""The documentation says what is true."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from banditmesh.runtime.doubts import doubts
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
            assert doubts(parse_mesh(block, origin=page.name)) == []


def named_files(section: str) -> list[tuple[str, bool]]:
    """Each file or folder that a section names, and whether there is one: below the root, below `banditmesh/`, or
    beside one that the section named before."""
    found, folders = [], [ROOT, ROOT / "banditmesh"]
    for name in re.findall(r"`([\w./-]+(?:\.py|\.proto|\.toml|/))`", section):
        places = [folder / name for folder in folders if (folder / name).exists()]
        found.append((name, bool(places)))
        folders += [place if place.is_dir() else place.parent for place in places if "/" in name]
    return found


@pytest.mark.parametrize("page", ["architecture.md", "glossary.md"])
def test_files_that_a_page_about_the_code_names_exist(page: str) -> None:
    sections = (ROOT / "docs" / page).read_text().split("\n## ")
    named = [each for section in sections for each in named_files(section)]
    assert page != "architecture.md" or len(named) > 60
    assert [name for name, exists in named if not exists] == []


def test_a_file_that_does_not_exist_is_found_by_the_test_before() -> None:
    section = "`services/joiner/join.py` and `ledger.py`, then `gone.py` and `services/joiner/gone.py`; `filters/`"
    assert [name for name, exists in named_files(section) if not exists] == [
        "gone.py",
        "services/joiner/gone.py",
        "filters/",
    ]


def test_the_glossary_says_each_word_once_in_order() -> None:
    lines = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    words = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
    assert len(words) >= 40
    assert words == sorted(set(words))


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
