"""What the chart renders, as objects."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from tests.deploy.tools import CHART, helm

Object = dict[str, Any]
VALUES_FILES = ("evaluation", "production")
SERVICES = ("importer", "engine", "tracker", "joiner", "learner")


def helm_template(values: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`helm template mesh -n demo` with one of the values files."""
    file = CHART / f"values-{values}.yaml"
    argv = [helm(), "template", "mesh", CHART, "--namespace", "demo", "--values", file, *words]
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True)


@cache
def rendered(values: str, *sets: str) -> tuple[Object, ...]:
    """All objects; ``sets`` are like ``engine.replicas=3``, their values JSON."""
    words = [word for one in sets for word in ("--set-json", one)]
    done = helm_template(values, *words)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def of_kind(objects: tuple[Object, ...], *kinds: str) -> dict[str, Object]:
    """Those of some kinds, by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] in kinds}


def pods(objects: tuple[Object, ...]) -> Iterator[tuple[str, Object]]:
    """(name, pod spec) of everything that makes pods."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]
        elif each["kind"] == "CronJob":
            yield each["metadata"]["name"], each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def mesh_yaml(objects: tuple[Object, ...]) -> str:
    """The mesh.yaml of the ConfigMap."""
    return str(of_kind(objects, "ConfigMap")["mesh-mesh"]["data"]["mesh.yaml"])


def canonical(value: Any) -> str:
    """For comparisons."""
    return json.dumps(value, sort_keys=True)


def component(labels: Mapping[str, str]) -> str:
    """The component that labels select."""
    return labels.get("app.kubernetes.io/component", "*")
