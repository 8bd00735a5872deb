"""kubectl and helm, for the steps of `make cluster-test`."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "banditmesh"
SERVICES = ("importer", "engine", "tracker", "joiner", "learner")
TAG, NEXT_TAG = "0.1.0", "0.1.1"
Object = dict[str, Any]


class Failed(Exception):
    """A step did not do what it must."""


def sh(
    *words: object, check: bool = True, stdin: str | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    argv = [str(word) for word in words]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        said = f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
        raise Failed(f"{' '.join(argv)[:200]} ended with {done.returncode}:\n{said}")
    return done


class Cluster:
    """One namespace, the release ``mesh`` in it, and what was found wrong."""

    def __init__(self, namespace: str, problems: list[str]) -> None:
        self.namespace, self.problems = namespace, problems

    def kubectl(self, *words: object, **options: Any) -> str:
        return sh("kubectl", "-n", self.namespace, *words, **options).stdout

    def get(self, *words: object) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *objects: Object) -> None:
        """As an operator does; a warning of the API server is a problem."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self._warned(
            "apply", sh("kubectl", "-n", self.namespace, "apply", "--server-side", "-f", "-", stdin=text).stderr
        )

    def helm(self, verb: str, *words: object) -> str:
        done = sh("helm", verb, "-n", self.namespace, *words, timeout=1200)
        self._warned(f"helm {verb}", done.stderr)
        return done.stdout

    def _warned(self, what: str, stderr: str) -> None:
        warnings = [line for line in stderr.splitlines() if "arning" in line]
        if warnings:
            self.problems.append(f"{what}: {warnings[:3]}")

    def wrong(self, problem: str) -> None:
        self.problems.append(problem)
        say(f"✘ {problem}")

    def expect(self, true: bool, what: str, otherwise: object = "") -> None:
        if true:
            say(f"✔ {what}")
        else:
            self.wrong(f"not so: {what} {otherwise}")

    def make_namespace(self) -> None:
        """With Pod Security admission at ``restricted``, in all its modes."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        metadata = {"name": self.namespace, "labels": labels}
        sh("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps({
            "apiVersion": "v1", "kind": "Namespace", "metadata": metadata,
        }))  # fmt: skip

    def pods(self, component: str) -> list[Object]:
        """Those that are not about to go."""
        found = self.get("pods", "-l", f"app.kubernetes.io/component={component}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def rolled_out(self) -> None:
        for service in SERVICES:
            kind = "statefulset" if service == "learner" else "deployment"
            self.kubectl("rollout", "status", f"{kind}/mesh-{service}", "--timeout=300s")

    def all_gone(self) -> None:
        """Wait for the pods that are about to go: what they do last is part of a step."""

        def leaving() -> bool:
            names = f"app.kubernetes.io/component in ({','.join(SERVICES)})"
            return any("deletionTimestamp" in pod["metadata"] for pod in self.get("pods", "-l", names)["items"])

        until("the old pods to go", lambda: not leaving())

    def inside(self, pod: str, code: str, *words: str, container: str = "") -> str:
        """What a line of Python prints in a running pod."""
        named = ["-c", container] if container else []
        return self.kubectl("exec", pod, *named, "--", "python", "-c", code, *words)

    def metric(self, pod: str, name: str) -> float:
        """The sum of a metric's series; 0 without one."""
        page = self.inside(pod, PAGE)
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))

    def run(
        self,
        name: str,
        command: Sequence[str],
        *,
        labels: dict[str, str],
        image: str = f"banditmesh-tools:{TAG}",
        volumes: Sequence[Object] = (),
        mounts: Sequence[Object] = (),
        env: Sequence[Object] = (),
        cpu: str = "50m",
        wait_s: float = 180,
    ) -> str:
        """Run a pod to its end and return what it printed; with ``wait_s=0`` only start it. ``cpu``: what it requests;
        a pod without a request gets next to nothing while others start, and would measure itself."""
        container = {
            "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": list(command),
            "env": list(env), "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],
            "resources": {"requests": {"cpu": cpu, "memory": "96Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            },
        }  # fmt: skip
        security = {
            "runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        spec = {
            "restartPolicy": "Never", "automountServiceAccountToken": False, "enableServiceLinks": False,
            "securityContext": security, "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
        }  # fmt: skip
        self.kubectl("delete", "pod", name, "--ignore-not-found", "--wait", "--grace-period=1")
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
        if not wait_s:
            return ""
        phase = ["get", "pod", name, "-o", "jsonpath={.status.phase}"]
        until(f"pod {name} to end", lambda: self.kubectl(*phase) in ("Succeeded", "Failed"), wait_s)
        said = self.kubectl("logs", name)
        if self.kubectl(*phase) == "Failed":
            raise Failed(f"pod {name} failed: {said[-2000:]}")
        return said


PAGE = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9090/metrics', timeout=9).read().decode())"


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def until(what: str, true: Callable[[], object], within_s: float = 180) -> float:
    """Seconds until it was so. Raises Failed."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within_s:
            raise Failed(f"waited {within_s:g} s for {what}")
        time.sleep(0.5)
    return time.monotonic() - began


def config_map(name: str, *files: Path) -> Object:
    data = {file.name: file.read_text() for file in files}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
