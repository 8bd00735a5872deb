"""Generates ``banditmesh/contracts`` from ``protos/``: at every build and installation, or by running this file.

The generated modules are typed (``.pyi``), have the protos beside them (``banditmesh/contracts/protos``), and are never
committed.
"""

from __future__ import annotations

import re
import shlex
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
        plugins += [_plugin(Path(folder), "mypy", "main"), _plugin(Path(folder), "mypy_grpc", "grpc")]
        if protoc.main(["protoc", f"-I{PROTOS}", f"-I{include}", *plugins, *sources]) != 0:
            raise RuntimeError("protoc failed; its message above names the file and the line")
        generated = Path(folder) / "banditmesh"
        for path in generated.rglob("*.py*"):
            path.write_text(IMPORT.sub(r"\1banditmesh.contracts.", path.read_text()))
        for package in [generated, *(path for path in generated.rglob("*") if path.is_dir())]:
            (package / "__init__.py").touch()
        shutil.rmtree(CONTRACTS, ignore_errors=True)
        shutil.copytree(generated, CONTRACTS)
    shutil.copytree(PROTOS, CONTRACTS / "protos")


def _plugin(folder: Path, name: str, function: str) -> str:
    """The protoc option for a plugin out of mypy-protobuf.

    protoc runs a program, and where the build environment keeps its scripts differs (``pip`` runs the build with the
    Python outside of it), so this one is written here: it sees the modules that we see.
    """
    script = folder / f"protoc-gen-{name}"
    code = f"import sys; sys.path[:] = {sys.path!r}; from mypy_protobuf.main import {function}; {function}()"
    script.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)}\n")
    script.chmod(0o755)
    return f"--plugin=protoc-gen-{name}={script}"


class ContractsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs :func:`generate` before hatchling collects the files of a wheel or of an editable installation. A source
    distribution carries the protos instead."""

    PLUGIN_NAME = "contracts"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "sdist":
            return
        generate()
        build_data["artifacts"].append("banditmesh/contracts/**")


if __name__ == "__main__":
    generate()
