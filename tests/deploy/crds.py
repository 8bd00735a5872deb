"""The definitions of others' objects that the chart makes, out of the Go modules of who defines them; fetched once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache as remembered
from pathlib import Path
from typing import Any

import yaml

from banditmesh.local import cache

DEFINED: dict[str, tuple[str, str]] = {
    "PodMonitor": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
    "PrometheusRule": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "ScaledObject": ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases/keda.sh_scaledobjects.yaml"),
    "Certificate": ("github.com/cert-manager/cert-manager@v1.18.2", "deploy/crds/crd-certificates.yaml"),
}
"""Kind: its module with the version, and the file in it."""


@remembered
def schema(kind: str, version: str) -> dict[str, Any]:
    """The JSON schema of a kind in an API version, as strict as the API server: unknown fields are refused."""
    module, file = DEFINED[kind]
    path = (
        cache.once(f"crd-{kind}-{module.rpartition('@')[2]}", lambda folder: _fetch(module, file, folder)) / "crd.yaml"
    )
    definition = yaml.load(path.read_text(), yaml.CSafeLoader)
    (found,) = (each for each in definition["spec"]["versions"] if each["name"] == version)
    strict: dict[str, Any] = _strict(found["schema"]["openAPIV3Schema"])
    strict["properties"]["metadata"] = {"type": "object"}
    return strict


def _fetch(module: str, file: str, folder: Path) -> None:
    """One file of a module; nothing that it depends on."""
    environment = {**os.environ, "GOFLAGS": "-mod=mod"}
    words = ["go", "mod", "download", "-json", module]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, f"{module} cannot be had: {done.stdout}{done.stderr}"
    shutil.copyfile(Path(json.loads(done.stdout)["Dir"]) / file, folder / "crd.yaml")


def _strict(schema: Any) -> Any:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        if schema.get("x-kubernetes-int-or-string"):
            schema.pop("type", None)
        for value in schema.values():
            _strict(value)
    elif isinstance(schema, list):
        for value in schema:
            _strict(value)
    return schema
