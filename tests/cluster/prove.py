"""`make cluster-test`: the chart on a real Kubernetes, under traffic, step by step.

Needs a cluster with two nodes and the images in it (``banditmesh-*:0.1.0``, and ``:0.1.1`` for the upgrade),
its ``KUBECONFIG``, helm and kubectl on the PATH. Each step's calls, failures and slowest call are printed; exit code 1
when a call failed that must not, or an impression was lost or doubled.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "banditmesh"
SERVICES = ("importer", "engine", "tracker", "joiner", "learner")
QUIET_S = 3
LOAD = ("--placement=hello", "--import-into=hello/greeting")


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


class Proof:
    """The cluster, and what was found."""

    def __init__(self, namespace: str, rate: float, seed: int, more_values: list[str]) -> None:
        self.namespace, self.rate = namespace, rate
        self.more_values = more_values
        self.random = random.Random(seed)
        self.rows: list[tuple[str, int, int, float, float]] = []
        self.problems: list[str] = []

    # --- Kubernetes ---------------------------------------------------------------------------------------------------

    def kubectl(self, *words: object, **options: Any) -> str:
        return sh("kubectl", "-n", self.namespace, *words, **options).stdout

    def helm(self, verb: str, *words: object) -> str:
        done = sh("helm", verb, "-n", self.namespace, *words, timeout=1200)
        warnings = [line for line in done.stderr.splitlines() if "arning" in line]
        if warnings:
            self.problems.append(f"helm {verb}: {warnings[:3]}")
        return done.stdout

    def pods(self, component: str) -> list[str]:
        selector = f"app.kubernetes.io/component={component}"
        names = self.kubectl("get", "pods", "-l", selector, "--field-selector=status.phase=Running", "-o", "name")
        return names.split()

    def rolled_out(self) -> None:
        for service in SERVICES:
            kind = "statefulset" if service == "learner" else "deployment"
            self.kubectl("rollout", "status", f"{kind}/mesh-{service}", "--timeout=300s")

    # --- traffic ------------------------------------------------------------------------------------------------------

    def start_load(self) -> None:
        script = (Path(__file__).parent / "load.py").read_text()
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "load"}, "data": {"load.py": script}}
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(config))
        test = json.loads(self.kubectl("get", "pod", "mesh-test-loop", "-o", "json"))
        container = test["spec"]["containers"][0]
        endpoints = "importer=mesh-importer:50051,engine=dns:///mesh-engine:50052,tracker=dns:///mesh-tracker:50053"
        container |= {
            "name": "load",
            "command": ["python", "/load/load.py"],
            "args": ["--endpoints", endpoints, *LOAD, f"--per-second={self.rate}"],
            "volumeMounts": [*container["volumeMounts"], {"name": "load", "mountPath": "/load"}],
        }
        script_volume = {"name": "load", "configMap": {"name": "load"}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "load", "labels": test["metadata"]["labels"]},
            "spec": {
                key: test["spec"][key]
                for key in ("restartPolicy", "securityContext", "automountServiceAccountToken", "enableServiceLinks")
            }
            | {"containers": [container], "volumes": [*test["spec"]["volumes"], script_volume]},
        }
        self.kubectl("delete", "pod", "load", "--ignore-not-found", "--wait")
        self.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        self.until("load to begin", lambda: '"select"' in self.kubectl("logs", "load", "--tail=1", check=False))

    def counts(self) -> dict[str, Any]:
        lines = [line for line in self.kubectl("logs", "load", "--tail=3").splitlines() if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else {}

    def until(self, what: str, true: Callable[[], object], within_s: float = 180) -> None:
        deadline = time.monotonic() + within_s
        while not true():
            if time.monotonic() > deadline:
                raise Failed(f"waited {within_s:g} s for {what}")
            time.sleep(0.5)

    @contextmanager
    def step(self, name: str, *, tracks_may_fail: bool = False) -> Iterator[None]:
        """Count the calls that go on meanwhile."""
        before, began = self.counts(), time.time()
        print(f"  {name} …", flush=True)
        yield
        time.sleep(QUIET_S)
        after, took_s = self.counts(), time.time() - began
        grown = {key: after[key] - before.get(key, 0) for key in after if isinstance(after[key], int)}
        calls = grown.get("select", 0) + grown.get("track", 0)
        failed = grown.get("select failed", 0) + grown.get("track failed", 0)
        log = self.kubectl("logs", "load", f"--since={int(took_s) + 1}s").splitlines()
        lines = [json.loads(line) for line in log if line.startswith("{")]
        slowest = max((line["slowest_s"] for line in lines), default=0.0)
        fallback = sum(count for key, count in grown.items() if key.startswith("origin fallback"))
        self.rows.append((name, calls, failed, took_s, slowest))
        said = f"{calls} calls, {failed} failed, {fallback} from the fallback"
        print(f"    {said}, slowest selection {slowest:.2f} s, {took_s:.0f} s", flush=True)
        if failed and not (tracks_may_fail and not grown.get("select failed", 0)):
            self.problems.append(f"{name}: {failed} of {calls} calls failed")

    # --- steps --------------------------------------------------------------------------------------------------------

    def install(self) -> None:
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self.namespace,
                "labels": {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")},
            },
        }
        sh("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(namespace))
        began = time.time()
        self.helm("install", "mesh", CHART, *self.values(), "--wait", "--timeout", "15m")
        print(f"installed and ready after {time.time() - began:.0f} s", flush=True)

    def values(self, *more: object) -> list[object]:
        return ["-f", CHART / "values-evaluation.yaml", "--set", "image.tag=0.1.0", *self.more_values, *more]

    def helm_test(self) -> None:
        said = self.helm("test", "mesh", "--logs", "--timeout", "5m")
        print("\n".join(f"  {line}" for line in said.splitlines() if " s  " in line), flush=True)

    def gitops(self) -> None:
        """A second apply of the same is a no-op, and so is an apply over what Helm has installed."""
        text = sh("helm", "template", "mesh", CHART, "-n", self.namespace, *self.values(), "--no-hooks").stdout
        versions = []
        for _ in range(2):
            self.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-", stdin=text)
            kinds = "deployment,statefulset,service,configmap,job,poddisruptionbudget,networkpolicy,serviceaccount"
            objects = json.loads(self.kubectl("get", kinds, "-o", "json"))["items"]
            versions.append({(each["kind"], each["metadata"]["name"]): generation(each) for each in objects})
        if versions[0] != versions[1]:
            self.problems.append("a second apply changed something")
        print(f"  {len(versions[0])} objects, the same after a second apply", flush=True)

    def arrows(self) -> None:
        """From pods of each role to each port: open where the design has an arrow, refused everywhere else."""
        targets = {
            "importer": ("mesh-importer", 50051), "engine": ("mesh-engine", 50052), "tracker": ("mesh-tracker", 50053),
            "joiner": ("mesh-joiner", 50054), "learner": ("mesh-learner", 50055), "metrics": ("mesh-engine", 9090),
            "kafka": ("mesh-kafka", 9092), "valkey": ("mesh-valkey", 6379), "s3": ("mesh-s3", 8333),
        }  # fmt: skip
        allowed = {"stranger": set(), "app": {"engine", "tracker"}, "team": {"importer"}, "operator": set(SERVICES)}
        code = (
            "import socket, sys\n"
            "for word in sys.argv[1:]:\n"
            "    name, host, port = word.split(',')\n"
            "    try:\n"
            "        socket.create_connection((host, int(port)), timeout=4).close(); print(name, 'open')\n"
            "    except OSError: print(name, 'closed')\n"
        )
        words = [f"{name},{host},{port}" for name, (host, port) in targets.items()]
        for role, may in allowed.items():
            labels = {"banditmesh/role": role}
            container = {
                "name": "probe", "image": "banditmesh-tools:0.1.0", "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-c", code, *words],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }  # fmt: skip
            security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
            pod = {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"probe-{role}", "labels": labels},
                "spec": {"restartPolicy": "Never", "securityContext": security, "containers": [container]},
            }  # fmt: skip
            self.kubectl("delete", "pod", f"probe-{role}", "--ignore-not-found", "--wait")
            self.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
            phase = ["get", "pod", f"probe-{role}", "-o", "jsonpath={.status.phase}"]
            self.until(f"probe of {role}", lambda phase=phase: self.kubectl(*phase) in ("Succeeded", "Failed"), 120)
            found = dict(line.split() for line in self.kubectl("logs", f"probe-{role}").splitlines())
            opened = {name for name, state in found.items() if state == "open"}
            if opened != may or len(found) != len(targets):
                self.problems.append(f"network policy: {role} reaches {sorted(opened)}, should {sorted(may)}")
            print(f"  {role}: open {sorted(opened) or 'nothing'}, closed {len(found) - len(opened)}", flush=True)

    def under_load(self, pods_to_delete: int, *, quick: bool) -> None:
        with self.step("nothing else"):
            time.sleep(20)
        # The services alone: Kafka and Valkey of an evaluation have an image too, and one pod each.
        tags = [word for service in SERVICES for word in ("--set", f"{service}.image.tag=0.1.1")]
        with self.step("upgrade of all services to another tag"):
            self.helm("upgrade", "mesh", CHART, *self.values(*tags), "--wait", "--timeout", "10m")
            self.rolled_out()
        with self.step("helm rollback"):
            self.helm("rollback", "mesh", "--wait", "--timeout", "10m")
            self.rolled_out()
        for service, counts in (("engine", (3, 1, 2)), ("joiner", (2, 1))):
            for count in counts:
                with self.step(f"{service} to {count}"):
                    self.kubectl("scale", f"deployment/mesh-{service}", f"--replicas={count}")
                    self.rolled_out()
        with self.step("learner restarted"):
            self.kubectl("rollout", "restart", "statefulset/mesh-learner")
            self.rolled_out()
        with self.step(f"{pods_to_delete} random pods deleted"):
            for _ in range(pods_to_delete):
                service = self.random.choice(SERVICES)
                pods = self.pods(service)
                if pods:
                    self.kubectl("delete", self.random.choice(pods), "--wait=false")
                time.sleep(1 if quick else 4)
                self.rolled_out()
        for node in sh("kubectl", "get", "nodes", "-o", "name").stdout.split():
            with self.step(f"{node} drained", tracks_may_fail=True):
                drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s"]
                services = "app.kubernetes.io/component in (importer,engine,tracker,joiner,learner)"
                sh("kubectl", *drain, "--pod-selector", services, check=False)
                sh("kubectl", "uncordon", node)
                self.rolled_out()
        for server in ("kafka", "valkey"):
            with self.step(f"{server} deleted", tracks_may_fail=True):
                self.kubectl("delete", "pod", f"mesh-{server}-0", "--wait=true")
                self.kubectl("rollout", "status", f"statefulset/mesh-{server}", "--timeout=180s")
                self.rolled_out()

    def finish(self) -> None:
        self.kubectl("exec", "load", "--", "touch", "/tmp/stop")
        self.until("the load's last word", lambda: '"done": true' in self.kubectl("logs", "load", "--tail=1"), 240)
        last = self.counts()
        print(json.dumps(last), flush=True)
        if last["missing"] or last["twice"]:
            self.problems.append(f"{last['missing']} impressions missing, {last['twice']} twice")

    def report(self) -> str:
        head = "| while | calls | failed | seconds | slowest selection |\n|---|---:|---:|---:|---:|\n"
        rows = [
            f"| {name} | {calls} | {failed} | {took_s:.0f} | {slowest_s:.2f} s |"
            for name, calls, failed, took_s, slowest_s in self.rows
        ]
        return head + "\n".join(rows) + "\n"


def generation(each: dict[str, Any]) -> object:
    """What changes with an object's specification."""
    return each["metadata"].get("generation") or (each["metadata"]["uid"], each.get("data"))


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespace", default="demo")
    parser.add_argument("--per-second", type=float, default=25, help="visits of the Python client")
    parser.add_argument("--pods", type=int, default=30, help="random pods that are deleted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="shorter pauses")
    parser.add_argument("--only-load", action="store_true", help="of a mesh that is installed and tested already")
    parser.add_argument("--set", action="append", default=[], help="as helm's --set-json")
    arguments = parser.parse_args()
    more = [word for one in arguments.set for word in ("--set-json", one)]
    proof = Proof(arguments.namespace, arguments.per_second, arguments.seed, more)
    try:
        if not arguments.only_load:
            proof.install()
            proof.helm_test()
            proof.gitops()
            proof.arrows()
        proof.start_load()
        proof.under_load(arguments.pods, quick=arguments.quick)
        proof.finish()
    except Failed as error:
        proof.problems.append(str(error))
    print(proof.report())
    for problem in proof.problems:
        print(f"✘ {problem}")
    return 1 if proof.problems else 0


if __name__ == "__main__":
    sys.exit(main())
