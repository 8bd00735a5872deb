"""Steady traffic of two clients, and what each step of the proof did to it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.kube import Cluster, config_map, say, until

HERE = Path(__file__).parent
QUIET_S = 3
SETTLE_S = 300
ENGINE, TRACKER = "dns:///mesh-engine:50052", "dns:///mesh-tracker:50053"
LOAD = ("--placement=hello", "--import-into=hello/greeting")
NODE_IMAGE = "banditmesh-load-node:1"
NODE_PER_SECOND = 5
CLIENT_CPU = "300m"
"""What each client requests: an app's backend has a share of its own."""


class Row(NamedTuple):
    """What happened while something was done."""

    name: str
    calls: int
    failed: int
    node_calls: int
    node_failed: int
    fallback: int
    took_s: float
    slowest_s: float


class Traffic:
    """The Python client's pod, and the Node client's."""

    def __init__(self, cluster: Cluster, per_second: float) -> None:
        self._cluster, self._per_second = cluster, per_second
        self.rows: list[Row] = []

    def start(self) -> None:
        """From the pod of `helm test`: that has the labels and the variables of a client."""
        cluster = self._cluster
        cluster.apply(config_map("load", HERE / "load.py"))
        test = cluster.get("pod", "mesh-test-loop")
        container = test["spec"]["containers"][0]
        endpoints = f"importer=mesh-importer:50051,engine={ENGINE},tracker={TRACKER}"
        volumes = [volume for volume in test["spec"]["volumes"] if volume["name"] != "tmp"]
        cluster.run(
            "load",
            ["python", "/load/load.py", "--endpoints", endpoints, *LOAD, f"--per-second={self._per_second}"],
            labels=test["metadata"]["labels"],
            image=container["image"],
            env=[*container["env"], *_from_secret(cluster, container)],
            volumes=[*volumes, {"name": "load", "configMap": {"name": "load"}}],
            mounts=[
                *(mount for mount in container["volumeMounts"] if mount["name"] != "tmp"),
                {"name": "load", "mountPath": "/load"},
            ],
            cpu=CLIENT_CPU,
            wait_s=0,
        )
        until(
            "the Python client to begin", lambda: '"select"' in cluster.kubectl("logs", "load", "--tail=1", check=False)
        )
        command = ["node", "/load/load.mjs", ENGINE, TRACKER, "hello", str(NODE_PER_SECOND)]
        labels = {"banditmesh/role": "app"}
        cluster.run("load-node", command, labels=labels, image=NODE_IMAGE, cpu=CLIENT_CPU, wait_s=0)
        until(
            "the Node client to begin",
            lambda: '"select"' in cluster.kubectl("logs", "load-node", "--tail=1", check=False),
        )

    def _last(self, pod: str) -> dict[str, Any]:
        lines = [line for line in self._cluster.kubectl("logs", pod, "--tail=3").splitlines() if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else {}

    def _grown(self, pod: str, before: dict[str, Any]) -> dict[str, int]:
        after = self._last(pod)
        for what, count in after.get("failures", {}).items():
            if count > before.get("failures", {}).get(what, 0):
                say(f"  {pod}: {count - before.get('failures', {}).get(what, 0)} × {what}")
        return {key: after[key] - before.get(key, 0) for key in after if isinstance(after[key], int)}

    @contextmanager
    def step(self, name: str, *, tracks_may_fail: bool = False) -> Iterator[None]:
        """Count the calls that go on meanwhile."""
        before, node_before, began = self._last("load"), self._last("load-node"), time.time()
        say(f"{name} …")
        yield
        time.sleep(QUIET_S)
        took_s = time.time() - began
        grown, node = self._grown("load", before), self._grown("load-node", node_before)
        failed, node_failed = _failed(grown), _failed(node)
        log = self._cluster.kubectl("logs", "load", f"--since={int(took_s) + 1}s").splitlines()
        slowest_s = max((json.loads(line)["slowest_s"] for line in log if line.startswith("{")), default=0.0)
        fallback = sum(count for key, count in grown.items() if key.startswith("origin fallback"))
        row = Row(name, _calls(grown), failed, _calls(node), node_failed, fallback, took_s, slowest_s)
        self.rows.append(row)
        said = f"{row.calls} calls, {failed} failed, {fallback} from the fallback; Node {row.node_calls}, {node_failed}"
        say(f"  {said}; slowest selection {slowest_s:.2f} s, {took_s:.0f} s")
        if failed and not (tracks_may_fail and not grown.get("select failed", 0)):
            self._cluster.wrong(f"{name}: {failed} of {row.calls} calls of the Python client failed")
        if node.get("select failed", 0):
            self._cluster.wrong(f"{name}: {node['select failed']} selections of the Node client failed")

    def finish(self) -> None:
        """Stop both, and see what became of each acknowledged impression."""
        cluster = self._cluster
        node = self._last("load-node")
        cluster.kubectl("delete", "pod", "load-node", "--grace-period=1")  # first: its examples would be waited for
        cluster.kubectl("exec", "load", "--", "touch", "/tmp/stop")
        until("the load's last word", lambda: '"done": true' in cluster.kubectl("logs", "load", "--tail=3"), SETTLE_S)
        last = self._last("load")
        say(f"Python: {json.dumps(last)}")
        say(f"Node: {json.dumps(node)}")
        whole = f"{last['acknowledged']} acknowledged impressions, {last['missing']} missing, {last['twice']} doubled"
        cluster.expect(not last["missing"] and not last["twice"], whole)

    def report(self) -> str:
        """Markdown, for docs/operations.md."""
        head = "| while | calls | failed | from the fallback | slowest selection | seconds | Node: calls | failed |\n"
        rows = [
            f"| {row.name} | {row.calls:,} | {row.failed} | {row.fallback} | {row.slowest_s:.2f} s | {row.took_s:.0f} "
            f"| {row.node_calls:,} | {row.node_failed} |"
            for row in self.rows
        ]
        total = [sum(row[index] for row in self.rows) for index in (1, 2, 3, 4)]  # type: ignore[misc]
        rows.append(f"| **all** | {total[0]:,} | {total[1]} | | | | {total[2]:,} | {total[3]} |")
        return f"{head}|---|---:|---:|---:|---:|---:|---:|---:|\n" + "\n".join(rows) + "\n"


def _from_secret(cluster: Cluster, container: dict[str, Any]) -> list[dict[str, Any]]:
    """`envFrom` of one Secret, key by key."""
    found = []
    for each in container.get("envFrom", []):
        secret = each["secretRef"]["name"]
        for key in cluster.get("secret", secret)["data"]:
            found.append({"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return found


def _calls(grown: dict[str, int]) -> int:
    return grown.get("select", 0) + grown.get("track", 0)


def _failed(grown: dict[str, int]) -> int:
    return grown.get("select failed", 0) + grown.get("track failed", 0)
