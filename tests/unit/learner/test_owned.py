"""The shards of a replica are made beside the calls that its former self answers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from banditmesh.runtime.mesh import Mesh, parse_mesh
from banditmesh.runtime.serve import Server
from services.learner import bootstrap
from services.learner.catalog import Catalog
from services.learner.owned import Owned
from services.learner.settings import LearnerSettings

ALIKE = "{sources: [news/top], experiment: {variants: {a: {weight: 1, policy: linucb}, b: {weight: 1, policy: fm}}}}"
MESH = f"services: {{news: {{logics: [top]}}}}\nplacements:\n  one: {ALIKE}\n  two: {ALIKE}\n"


async def test_the_loop_goes_on_while_shards_are_made_and_the_build_can_be_called_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, opened = threading.Event(), threading.Event()

    class Gated:
        """Stands for `Owned`, and holds whoever calls it."""

        @staticmethod
        def of(*given: Any) -> Owned:
            entered.set()
            opened.wait(20)
            return Owned.of(*given)

    monkeypatch.setattr(bootstrap, "Owned", Gated)
    config = tmp_path / "mesh.yaml"
    config.write_text(MESH)
    settings = LearnerSettings(config=config, kafka="127.0.0.1:1", store=f"file://{tmp_path}/store")  # type: ignore[arg-type]
    server = Server()
    before = {each.name for each in server.registry.collect()}
    building = asyncio.create_task(bootstrap.build(settings, server))
    try:
        async with asyncio.timeout(20):
            await asyncio.to_thread(entered.wait)  # the loop is here, and the build is there
        assert not building.done()
        assert {each.name for each in server.registry.collect()} == before
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
    finally:
        opened.set()


def test_replicas_share_the_shards_and_each_has_a_model_of_its_own() -> None:
    mesh: Mesh = parse_mesh(MESH)
    catalog = Catalog(mesh)
    owned = [Owned.of(catalog, mesh, ordinal, 2) for ordinal in (0, 1)]
    assert sorted(shard_id for each in owned for shard_id in each.models) == sorted(catalog.models)
    assert sorted(placement for each in owned for placement in each.tallies) == ["one", "two"]
    states = [shard._state for each in owned for shard in each.models.values()]
    assert len({id(state) for state in states}) == len(states)
