"""What `make cluster-test` runs in pods stands on parts that change; a cluster is seldom at hand to notice."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from banditmesh.runtime.mesh import parse_mesh
from tests.cluster import cold
from tests.cluster.large_model import large

SCRIPTS = sorted(path.stem for path in Path(cold.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_finds_what_it_imports(script: str) -> None:
    importlib.import_module(f"tests.cluster.{script}")


def test_a_model_of_any_size_can_be_made() -> None:
    mesh = parse_mesh("services: {hello: {logics: [greeting]}}" + cold.PLACEMENT)
    shard = large(mesh, "large", 0.001)
    assert shard.manifest(1).placement == "large"
    assert sum(tensor.nbytes for tensor in shard.tensors().values()) >= 1000
