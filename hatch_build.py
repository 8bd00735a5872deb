"""Generates ``banditmesh/contracts`` from ``protos/``: at every build and installation, or by running this file.

The generated modules are typed (``.pyi``) and never committed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
PROTOS = ROOT / "protos"
CONTRACTS = ROOT / "banditmesh" / "contracts"

# protoc derives Python's import paths from the proto paths (banditmesh/events/v1); ours live one folder deeper.
# Only import lines: the same words in descriptors and method names are the contract itself.
IMPORT = re.compile(r"^(\s*(?:from|import) )banditmesh\.(?=\w+\.v\d+\b)", re.MULTILINE)


def generate() -> None:
    """Write the contracts' Python modules and stubs.

    Raises:
        RuntimeError: protoc refused a file; its own message names the file and line.
    """
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    include = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        plugins = [f"--{plugin}={folder}" for plugin in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")]
        scripts = Path(sys.executable).parent
        for plugin in ("mypy", "mypy_grpc"):
            plugins.append(f"--plugin=protoc-gen-{plugin}={scripts / f'protoc-gen-{plugin}'}")
        if protoc.main(["protoc", f"-I{PROTOS}", f"-I{include}", *plugins, *sources]) != 0:
            raise RuntimeError("protoc failed; its message above names the file and the line")
        generated = Path(folder) / "banditmesh"
        for path in generated.rglob("*.py*"):
            path.write_text(IMPORT.sub(r"\1banditmesh.contracts.", path.read_text()))
        for package in [generated, *(path for path in generated.rglob("*") if path.is_dir())]:
            (package / "__init__.py").touch()
        shutil.rmtree(CONTRACTS, ignore_errors=True)
        shutil.copytree(generated, CONTRACTS)


class ContractsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs :func:`generate` before hatchling collects the files of a wheel or of an editable installation."""

    PLUGIN_NAME = "contracts"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        generate()
        build_data["artifacts"].append("banditmesh/contracts/**")


if __name__ == "__main__":
    generate()
