"""What of mesh.yaml was checked is what is built, however often the file changes meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from banditmesh.runtime import reload
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import Mesh, load_mesh
from banditmesh.runtime.metrics import new_registry
from banditmesh.runtime.reload import Reloader
from banditmesh.runtime.serve import Server

ONE = "services: {news: {logics: [top]}}\nplacements: {home: {sources: [news/top]}}\ntoken: {max_age: 1h}\n"
TWO = ONE.replace("1h", "2h")


class Serving:
    """What of a server the reloader touches; a change of the file waits for whoever builds."""

    def __init__(self, path: Path) -> None:
        self.clock, self.registry = ManualClock(), new_registry()
        self.mesh_text: str | None = None
        self.path = path
        self.changes: list[str] = []
        self.built: list[Mesh] = []

    async def rebuild(self, build: object) -> None:
        if self.changes:
            self.path.write_text(self.changes.pop())
        self.built.append(load_mesh(self.path, self.mesh_text))


async def build() -> None:
    """The server does it."""


async def test_a_change_while_the_one_before_is_built_is_taken_next(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(ONE)
    server = Serving(path)
    reloader = Reloader(path, cast(Server, server), build)
    path.write_text(TWO)
    broken = ONE + "kafka: {partitions: 8}\n"  # what must not change while the mesh runs
    server.changes = [broken]

    await reloader.look()
    await reloader.look()

    assert [mesh.token.max_age for mesh in server.built] == [7200.0]
    assert server.built[0].kafka.partitions == 4


async def test_a_file_that_is_put_back_while_it_is_built(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(ONE)
    server = Serving(path)
    reloader = Reloader(path, cast(Server, server), build)
    path.write_text(TWO)
    server.changes = [ONE]

    await reloader.look()
    await reloader.look()

    assert [mesh.token.max_age for mesh in server.built] == [7200.0, 3600.0]


async def test_the_first_build_has_what_the_reloader_compares_with(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(ONE)
    server = Serving(path)
    reloader = Reloader(path, cast(Server, server), build)
    path.write_text(TWO)
    first = load_mesh(path, server.mesh_text)
    path.write_text(ONE)
    await reloader.look()

    assert first.token.max_age == 3600.0
    assert server.built == []


@pytest.mark.parametrize("what", ["nothing", "a folder", "no text"])
async def test_a_file_that_cannot_be_read_is_left_to_the_bootstrap_which_says_why(tmp_path: Path, what: str) -> None:
    path = tmp_path / "mesh.yaml"
    if what == "a folder":  # as a ConfigMap that is mounted where its file should be
        path.mkdir()
    elif what == "no text":
        path.write_bytes(b"\xff\xfe")
    server = Serving(path)
    Reloader(path, cast(Server, server), build)

    assert server.mesh_text is None
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_mesh(path, server.mesh_text)


@pytest.mark.parametrize(
    "wrong", ["a: " + "[" * 5000, ONE.replace("top]}}", r'top]}, "\ud800": 1}')], ids=["deep", "no text"]
)
async def test_a_file_that_no_parser_gets_through_is_refused_and_the_next_one_taken(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(ONE)
    server = Serving(path)
    reloader = Reloader(path, cast(Server, server), build)

    path.write_text(wrong)
    await reloader.look()
    assert server.built == []
    assert server.registry.get_sample_value("banditmesh_mesh_stale") == 1

    path.write_text(TWO)
    await reloader.look()
    assert [mesh.token.max_age for mesh in server.built] == [7200.0]
    assert server.registry.get_sample_value("banditmesh_mesh_stale") == 0


async def test_a_bug_in_the_look_does_not_end_the_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(ONE)
    server = Serving(path)
    reloader = Reloader(path, cast(Server, server), build)

    def buggy(text: str, *, origin: str) -> Mesh:
        raise KeyError(origin)

    path.write_text(ONE + "# more\n")
    with monkeypatch.context() as broken:
        broken.setattr(reload, "parse_mesh", buggy)
        await reloader.look()
    assert server.registry.get_sample_value("banditmesh_mesh_reloads_total", {"result": "refused"}) == 1

    path.write_text(TWO)
    await reloader.look()
    assert [mesh.token.max_age for mesh in server.built] == [7200.0]
