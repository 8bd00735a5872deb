"""What `make cluster-test` runs in pods stands on parts that change; a cluster is seldom at hand to notice."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from banditmesh.runtime.mesh import parse_mesh
from tests.cluster import cold
from tests.cluster.large_model import large
from tests.deploy.checkout import ROOT

HERE = Path(cold.__file__).parent
SCRIPTS = sorted(path.stem for path in HERE.glob("*.py"))
RETRIED = re.compile(r"retryableStatusCodes\W+(.*?)[\])]")


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_finds_what_it_imports(script: str) -> None:
    importlib.import_module(f"tests.cluster.{script}")


def test_a_model_of_any_size_can_be_made() -> None:
    mesh = parse_mesh("services: {hello: {logics: [greeting]}}" + cold.PLACEMENT)
    shard = large(mesh, "large", 0.001)
    assert shard.manifest(1).placement == "large"
    assert sum(tensor.nbytes for tensor in shard.tensors().values()) >= 1000


@pytest.mark.parametrize(("path", "clients"), [(ROOT / "docs" / "clients.md", 3), (HERE / "load.mjs", 1)])
def test_a_foreign_client_tries_again_what_no_server_took(path: Path, clients: int) -> None:
    """CANCELLED, too: the transport of a server that stops cuts off what its event loop has not taken up."""
    codes = [set(re.findall(r"[A-Z_]{2,}", found)) for found in RETRIED.findall(path.read_text())]
    assert codes == [{"UNAVAILABLE", "CANCELLED"}] * clients


def test_the_foreign_clients_of_the_page_do_not_multiply_an_overload() -> None:
    throttled = re.findall(r"retryThrottling\W.*?tokenRatio\W+([0-9.]+)", (ROOT / "docs" / "clients.md").read_text())
    assert throttled == ["0.1"] * 3
