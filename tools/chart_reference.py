"""Writes ``README.md`` and ``values.schema.json`` of the chart out of its ``values.yaml``: ``make chart``.

A comment that begins with ``# --`` is the description of the key after it. Types come from the defaults; what is
narrower than its type stands in :data:`NARROWER`, what takes keys of the user's own in :data:`FREE`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "deploy" / "helm" / "banditmesh"
KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z0-9]+):")
SERVICES = ("importer", "engine", "tracker", "joiner", "learner")

POD_KEYS = ("nodeSelector", "affinity", "podDisruptionBudget")
COUNT = {"type": "integer", "minimum": 0}
PERCENT = {"type": "integer", "minimum": 1, "maximum": 100}
NARROWER: dict[str, dict[str, Any]] = {
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "kafka.securityProtocol": {"enum": ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]},
    "kafka.saslMechanism": {"enum": ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]},
    "kafka.servers": {"type": "string", "pattern": r"^$|^[^,:\s]+:\d+(,[^,:\s]+:\d+)*$"},
    "redis.url": {"type": "string", "pattern": r"^$|^rediss?(\+cluster|\+sentinel)?://[^@]+$"},
    "store.url": {"type": "string", "pattern": r"^$|^s3://[^@]+$"},
    "tls.certManager.kind": {"enum": ["Issuer", "ClusterIssuer"]},
    "shutdown.drainSeconds": {"type": "integer", "minimum": 0, "maximum": 300},
    "shutdown.graceSeconds": {"type": "integer", "minimum": 1, "maximum": 3600},
    "test.timeoutSeconds": {"type": "integer", "minimum": 1},
}
for _service in SERVICES:
    NARROWER[f"{_service}.replicas"] = COUNT
    for _scaler in ("autoscaling", "keda"):
        for _bound in ("minReplicas", "maxReplicas"):
            NARROWER[f"{_service}.{_scaler}.{_bound}"] = {"type": "integer", "minimum": 1}
    NARROWER[f"{_service}.autoscaling.cpuPercent"] = PERCENT
FREE = {
    "commonLabels",
    "extraEnv",
    "serviceAccount.annotations",
    "monitoring.podMonitor.labels",
    "monitoring.rules.labels",
    "monitoring.dashboards.labels",
    "evaluation.kafka.resources",
    "evaluation.valkey.resources",
    "evaluation.s3.resources",
    *(
        f"{service}.{key}"
        for service in SERVICES
        for key in (
            "resources",
            "serviceAccountAnnotations",
            "extraEnv",
            "nodeSelector",
            "affinity",
            "podDisruptionBudget",
        )
    ),
}
NOT_OF_ENVIRONMENTS = {"type": ["string", "number", "boolean"]}
HEAD = """# The chart's values

Made out of `values.yaml` by `make chart`; do not edit. How to: [docs/kubernetes.md](../../../docs/kubernetes.md).

| value | default | |
|---|---|---|
"""


def descriptions(text: str) -> dict[str, str]:
    """The description of each key that has one, by its path."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            pending = [stripped.removeprefix("# --").strip()]
        elif stripped.startswith("#"):
            if pending:
                pending.append(stripped.removeprefix("#").strip())
        elif match := KEY.match(line):
            indent = len(match["indent"])
            path = [entry for entry in path if entry[0] < indent] + [(indent, match["key"])]
            if pending:
                found[".".join(key for _, key in path)] = " ".join(pending)
            pending = []
        else:
            pending = []
    return found


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, default) of each value; a mapping with keys of the user's own is one value."""
    if isinstance(values, dict) and values and path not in FREE:
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, values


def readme(text: str) -> str:
    """The table of all values."""
    said = descriptions(text)
    rows = []
    for path, default in leaves(yaml.safe_load(text)):
        parents = path.split(".")
        own = said.get(path) or (said.get(".".join(parents[:-1]), "") if len(parents) > 2 else "")
        shown = json.dumps(default) if default not in ("", {}, []) else ""
        rows.append(f"| `{path}` | {f'`{shown}`' if shown else ''} | {own} |\n".replace("|  |", "| |"))
    return HEAD + "".join(rows)


def schema(values: Any, path: str = "") -> dict[str, Any]:
    """The JSON schema of a value with this default."""
    if path in NARROWER:
        return NARROWER[path]
    if isinstance(values, dict):
        if path in FREE:
            extra = {"additionalProperties": NOT_OF_ENVIRONMENTS} if path.endswith("extraEnv") else {}
            return {"type": "object", **extra}
        properties = {key: schema(value, f"{path}.{key}".lstrip(".")) for key, value in values.items()}
        return {"type": "object", "additionalProperties": False, "properties": properties}
    if isinstance(values, bool):
        return {"type": "boolean"}
    if isinstance(values, int):
        return {"type": "integer"}
    if isinstance(values, list):
        return {"type": "array"}
    return {"type": "string"}


def schema_text(text: str) -> str:
    """The schema file."""
    values = yaml.safe_load(text)
    document = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "banditmesh", **schema(values)}
    document["properties"]["global"] = {"type": "object"}
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    written = (CHART / "values.yaml").read_text()
    (CHART / "README.md").write_text(readme(written))
    (CHART / "values.schema.json").write_text(schema_text(written))
