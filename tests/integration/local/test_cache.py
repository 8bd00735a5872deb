"""The cache folder: what is in it is whole, and was built once."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

import pytest

from banditmesh.local import cache

BUILDER = """
import pathlib, sys
from banditmesh.local import cache
def build(folder):
    with open(sys.argv[1], "a") as builds:
        builds.write("built\\n")
    print("building", flush=True)
    sys.stdin.readline()
    (folder / "part").write_text("whole")
print((cache.once("thing", build) / "part").read_text())
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BANDITMESH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_part(folder: Path) -> None:
    (folder / "part").write_text("whole")


def fail_half_way(folder: Path) -> None:
    (folder / "part").write_text("ha")
    raise ConnectionError("the network went away")


def can_be_read(process: subprocess.Popen[str], *, within_s: float) -> bool:
    return bool(select.select([process.stdout], [], [], within_s)[0])


def begins_to_build(first: subprocess.Popen[str], second: subprocess.Popen[str]) -> bool:
    """Whether it is the first that says that it builds; reads that line."""
    builds = select.select([first.stdout, second.stdout], [], [], 20)[0][0]
    assert builds.readline() == "building\n"
    return builds is first.stdout


def test_an_entry_is_built_once() -> None:
    first = cache.once("thing", write_part)
    assert cache.once("thing", fail_half_way) == first
    assert (first / "part").read_text() == "whole"


def test_an_entry_whose_building_failed_is_not_there_and_can_be_built_again(own_cache: Path) -> None:
    with pytest.raises(ConnectionError):
        cache.once("thing", fail_half_way)
    assert [path.name for path in own_cache.iterdir()] == [".thing.lock"]
    assert (cache.once("thing", write_part) / "part").exists()


def test_what_a_killed_builder_left_is_cleared_by_the_next(own_cache: Path) -> None:
    (own_cache / ".thing.killed.partial").mkdir(parents=True)
    cache.once("thing", write_part)
    assert sorted(path.name for path in own_cache.iterdir()) == [".thing.lock", "thing"]


def test_a_process_that_wants_what_another_builds_waits_for_it(tmp_path: Path) -> None:
    def builder() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", BUILDER, str(tmp_path / "builds")]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with builder() as first, builder() as second:
        working, waiting = (first, second) if begins_to_build(first, second) else (second, first)
        assert not can_be_read(waiting, within_s=1.0)
        assert working.communicate("go on\n", timeout=20)[0] == "whole\n"
        assert waiting.communicate(timeout=20)[0] == "whole\n"
    assert (tmp_path / "builds").read_text() == "built\n"


def test_the_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BANDITMESH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "banditmesh"
