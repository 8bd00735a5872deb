"""What an engine works out of a mesh.yaml before it makes any client."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import Mesh, parse_mesh
from banditmesh.runtime.serve import Server
from services.crs_engine import bootstrap
from services.crs_engine.models import priors
from services.crs_engine.prepared import Prepared, prepare
from services.crs_engine.settings import EngineSettings
from tests.support.engine_world import TOKEN_KEYS

ALIKE = "{sources: [news/top], experiment: {variants: {a: {weight: 1, policy: linucb}, b: {weight: 1, policy: fm}}}}"
MESH = f"services: {{news: {{logics: [top]}}}}\nplacements:\n  one: {ALIKE}\n  two: {ALIKE}\n"


class Gate:
    """Stands for `prepare`, and holds whoever calls it."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def prepare(self, mesh: Mesh) -> Prepared:
        self.entered.set()
        self.opened.wait(20)
        return prepare(mesh)


def settings(folder: Path, **more: Any) -> EngineSettings:
    config = folder / "mesh.yaml"
    config.write_text(MESH)
    given = {"redis": "redis://127.0.0.1:1", "store": f"file://{folder}/store", "token_keys": TOKEN_KEYS, **more}
    return EngineSettings(config=config, **given)


async def test_the_loop_goes_on_while_placements_are_compiled_and_the_build_can_be_called_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, server = Gate(), Server()
    monkeypatch.setattr(bootstrap, "prepare", gate.prepare)
    before = {each.name for each in server.registry.collect()}
    building = asyncio.create_task(bootstrap.build(settings(tmp_path), server, np.random.default_rng(1)))
    try:
        async with asyncio.timeout(20):
            await asyncio.to_thread(gate.entered.wait)  # the loop is here, and the build is there
        assert not building.done()
        assert {each.name for each in server.registry.collect()} == before
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
    finally:
        gate.opened.set()


async def test_keys_that_are_wrong_are_found_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(bootstrap, "prepare", gate.prepare)
    with pytest.raises(ConfigurationError):
        await bootstrap.build(settings(tmp_path, token_keys="1:ab"), Server(), np.random.default_rng(1))
    assert not gate.entered.is_set()


def test_models_that_are_alike_have_one_prior_and_others_their_own() -> None:
    found = priors(parse_mesh(MESH.replace("policy: fm}}}}\n  two", "policy: {fm: {factors: 4}}}}}}\n  two")))
    by_policy = {
        name: [policy for (_, model), policy in found.items() if model.startswith(f"{name}-")]
        for name in ("linucb", "fm")
    }
    assert by_policy["linucb"][0] is by_policy["linucb"][1]
    assert [policy.params.model_dump()["factors"] for policy in by_policy["fm"]] == [4, 16]


def test_everything_is_there_by_the_placements_name() -> None:
    mesh = parse_mesh(MESH)
    prepared = prepare(mesh)
    for found in (prepared.placements, prepared.filters, prepared.rules):
        assert list(found) == ["one", "two"]
    assert prepared.sources == ["news/top"]
    assert prepared.priors.keys() == mesh.models().keys()
    assert not prepared.rebuilt
