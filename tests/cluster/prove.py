"""`make cluster-test`: the chart on a real Kubernetes, under traffic, step by step.

Needs a cluster with two nodes and the images in it (``banditmesh-*:0.1.0``, and ``:0.1.1`` for the upgrade), its
``KUBECONFIG``, helm, kubectl and grpcurl on the PATH. Each step's calls, failures and slowest call are printed; exit
code 1 when a call failed that must not, an impression was lost or doubled, or anything else was not as it must be.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import cold, doors, secured
from tests.cluster.kube import CHART, NEXT_TAG, ROOT, SERVICES, TAG, Cluster, Failed, say, sh, until
from tests.cluster.traffic import Traffic

PHASES = ("install", "doors", "traffic", "secured", "cold")
DEMO_VISITS = 6000
"""The chart's default. Fewer are over before the first models are there: they come some 300 a second."""
SELECT = ("-d", '{"placement": "hello", "user_id": "banditmesh-test"}')
METHOD = "banditmesh.crs_engine.v1.CrsEngineService/SelectContent"


class Proof:
    """The release in the namespace ``demo``."""

    def __init__(self, cluster: Cluster, per_second: float, seed: int, more_values: list[str]) -> None:
        self.cluster = cluster
        self.more_values = more_values
        self.random = random.Random(seed)
        self.traffic = Traffic(cluster, per_second)

    def values(self, *more: object) -> list[object]:
        return ["-f", CHART / "values-evaluation.yaml", "--set", f"image.tag={TAG}", *self.more_values, *more]

    # --- without traffic ----------------------------------------------------------------------------------------------

    def install(self, previous: str) -> None:
        """First as GitOps does, with the chart of the release before where there is one; then with Helm."""
        cluster = self.cluster
        cluster.make_namespace()
        if previous:
            self._from_previous(previous)
        began = time.time()
        cluster.helm("install", "mesh", CHART, *self.values(), "--wait", "--timeout", "15m")
        say(f"✔ installed and ready after {time.time() - began:.0f} s")
        said = cluster.helm("test", "mesh", "--logs", "--timeout", "5m")
        print("\n".join(f"    {line}" for line in said.splitlines() if " s  " in line), flush=True)
        cluster.expect("the engine has loaded" in said, "helm test goes once around the loop")
        self._second_apply()
        self._grpcurl()

    def _from_previous(self, revision: str) -> None:
        """An upgrade by `kubectl apply` from the chart of another revision; a field that cannot change would fail."""
        cluster = self.cluster
        with tempfile.TemporaryDirectory() as folder:
            path = "deploy/helm/banditmesh"
            archive = subprocess.run(["git", "archive", revision, path], cwd=ROOT, capture_output=True, check=True)
            subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
            old = Path(folder) / path
            words = ["mesh", old, "-n", cluster.namespace, "-f", old / "values-evaluation.yaml", "--no-hooks"]
            text = sh("helm", "template", *words, "--set", f"image.tag={TAG}").stdout
            self._apply_text(text)
        cluster.rolled_out()
        text = sh("helm", "template", "mesh", CHART, "-n", cluster.namespace, *self.values(), "--no-hooks").stdout
        self._apply_text(text)
        cluster.rolled_out()
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
        say(f"✔ kubectl apply of chart {version} over that of {revision[:10]} works")
        sh("kubectl", "delete", "namespace", cluster.namespace, "--wait", timeout=300)
        cluster.make_namespace()

    def _apply_text(self, text: str) -> None:
        words = ["--server-side", "--force-conflicts", "--field-manager=helm"]
        self.cluster.kubectl("apply", *words, "-f", "-", stdin=text)

    def _second_apply(self) -> None:
        """A second apply of the same is a no-op. The first one over Helm's own takes its annotations, and no pod."""
        text = sh("helm", "template", "mesh", CHART, "-n", self.cluster.namespace, *self.values(), "--no-hooks").stdout
        kinds = (
            "deployment,statefulset,service,configmap,secret,job,poddisruptionbudget,networkpolicy,serviceaccount,"
            "role,rolebinding"
        )
        pods, versions = [], []
        for _ in range(2):
            self._apply_text(text)
            objects = self.cluster.get(kinds)["items"]
            versions.append({(each["kind"], each["metadata"]["name"]): generation(each) for each in objects})
            pods.append({pod["metadata"]["uid"] for service in SERVICES for pod in self.cluster.pods(service)})
        changed = [name for name in versions[0] if versions[0][name] != versions[1].get(name)]
        same = not changed and versions[0].keys() == versions[1].keys() and pods[0] == pods[1]
        self.cluster.expect(same, f"{len(versions[0])} objects, the same after a second kubectl apply", changed)

    def _grpcurl(self) -> None:
        """From a pod, and from here through a port-forward."""
        words = ["grpcurl", "-plaintext", *SELECT, "mesh-engine:50052", METHOD]
        said = self.cluster.run("grpcurl", words, labels={"banditmesh/role": "app"})
        self.cluster.expect("banditmesh-hello" in said, "grpcurl selects from a pod", said[:200])
        argv = ["kubectl", "-n", self.cluster.namespace, "port-forward", "svc/mesh-engine", ":50052"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as forward:
            try:
                assert forward.stdout is not None
                (port,) = re.findall(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
                said = sh("grpcurl", "-plaintext", *SELECT, f"localhost:{port}", METHOD).stdout
                listed = sh("grpcurl", "-plaintext", f"localhost:{port}", "list").stdout
            finally:
                forward.terminate()
        self.cluster.expect(
            "banditmesh-hello" in said and "CrsEngineService" in listed,
            "grpcurl lists and selects through a port-forward",
        )

    # --- under traffic ------------------------------------------------------------------------------------------------

    def under_load(self, pods_to_delete: int, *, quick: bool, shown: bool) -> None:
        """``shown``: the demo and the changes of mesh.yaml were seen before."""
        cluster, step = self.cluster, self.traffic.step
        with step("nothing else"):
            time.sleep(20)
        if not shown:
            with step("mesh.yaml broken, then changed"):
                self._mesh_yaml()
            with step(f"the demo's traffic as a Job, {DEMO_VISITS} visits"):
                self._demo()
        # The services alone: Kafka and Valkey of an evaluation have an image too, and one pod each.
        tags = [word for service in SERVICES for word in ("--set", f"{service}.image.tag={NEXT_TAG}")]
        with step("upgrade of all services to another tag"):
            cluster.helm("upgrade", "mesh", CHART, *self.values(*tags), "--wait", "--timeout", "10m")
            self._runs(NEXT_TAG)
        with step("helm rollback"):
            cluster.helm("rollback", "mesh", "--wait", "--timeout", "10m")
            self._runs(TAG)
        for service, counts in (("engine", (1, 3, 1, 2)), ("joiner", (2, 1))):
            for count in counts:
                with step(f"{service} to {count}"):
                    cluster.kubectl("scale", f"deployment/mesh-{service}", f"--replicas={count}")
                    cluster.rolled_out()
                    cluster.all_gone()
        with step("learner restarted"):
            cluster.kubectl("rollout", "restart", "statefulset/mesh-learner")
            cluster.rolled_out()
        with step(f"{pods_to_delete} random pods deleted"):
            for _ in range(pods_to_delete):
                pods = cluster.pods(self.random.choice(SERVICES))
                if pods:
                    name = self.random.choice(pods)["metadata"]["name"]
                    cluster.kubectl("delete", "pod", name, "--wait=false")
                time.sleep(1 if quick else 3)
                cluster.rolled_out()
            cluster.all_gone()
        for node in sh("kubectl", "get", "nodes", "-o", "name").stdout.split():
            with step(f"{node} drained"):
                drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s"]
                services = "app.kubernetes.io/component in (importer,engine,tracker,joiner,learner)"
                sh("kubectl", *drain, "--pod-selector", services)
                cluster.rolled_out()
                cluster.all_gone()
                sh("kubectl", "uncordon", node)
        for server in ("kafka", "valkey"):
            with step(f"{server} deleted", tracks_may_fail=True):
                cluster.kubectl("delete", "pod", f"mesh-{server}-0", "--wait=true")
                cluster.kubectl("rollout", "status", f"statefulset/mesh-{server}", "--timeout=180s")
                cluster.rolled_out()
        self.traffic.finish()

    def _runs(self, tag: str) -> None:
        """Every pod of the services was replaced."""
        cluster = self.cluster
        cluster.rolled_out()
        cluster.all_gone()
        images = {pod["spec"]["containers"][0]["image"] for service in SERVICES for pod in cluster.pods(service)}
        right = {image for image in images if image.endswith(f":{tag}")}
        cluster.expect(images == right and len(right) == len(SERVICES), f"every pod runs {tag}", images - right)

    def _mesh_yaml(self) -> None:
        """A broken one is refused by all five, a right one taken by all five, and nothing restarts."""
        cluster = self.cluster
        good = cluster.get("configmap", "mesh-mesh")["data"]["mesh.yaml"]
        broken = good.replace("sources: [hello/greeting]", "sauces: [hello/greeting]")
        changed = good.replace("weight: 1,", "weight: 2,")
        assert good != broken
        assert good != changed
        for text, reason, word in ((broken, "MeshYamlRefused", "sauces"), (changed, "MeshYamlTaken", "in effect")):
            patch = json.dumps({"data": {"mesh.yaml": text}})
            cluster.kubectl("patch", "configmap", "mesh-mesh", "--patch", patch)

            def told(reason: str = reason, word: str = word) -> bool:
                events = cluster.get("events", f"--field-selector=reason={reason}")["items"]
                return {
                    each["source"]["component"].removeprefix("banditmesh-").removeprefix("crs-")
                    for each in events
                    if word in each["message"]
                } == set(SERVICES)

            took_s = until(f"events {reason} of all five services", told, 180)
            until(f"banditmesh_mesh_stale of every pod after {reason}", lambda text=text: self._stale(text == broken))
            cluster.expect(True, f"{reason} from all five {took_s:.0f} s after the ConfigMap has changed")
        cluster.kubectl("patch", "configmap", "mesh-mesh", "--patch", json.dumps({"data": {"mesh.yaml": good}}))
        restarts = [
            each["restartCount"]
            for service in SERVICES
            for pod in cluster.pods(service)
            for each in pod["status"]["containerStatuses"]
        ]
        cluster.expect(not sum(restarts), "no container has restarted", restarts)

    def _stale(self, expected: bool) -> bool:
        """Whether every pod says so; each looks at its file by itself."""
        pods = [pod["metadata"]["name"] for service in SERVICES for pod in self.cluster.pods(service)]
        return all(self.cluster.metric(pod, "banditmesh_mesh_stale ") == float(expected) for pod in pods)

    def _demo(self) -> None:
        """Real ratings as traffic; the Job itself fails unless each impression became exactly one example."""
        cluster = self.cluster
        values = ("--set", "evaluation.demo.traffic=true", "--set", f"evaluation.demo.visits={DEMO_VISITS}")
        text = sh(
            "helm", "template", "mesh", CHART, "-n", cluster.namespace, *self.values(*values), "--no-hooks"
        ).stdout
        (job,) = (each for each in yaml.safe_load_all(text) if each and "-demo-" in each["metadata"]["name"])
        cluster.kubectl("delete", "job", job["metadata"]["name"], "--ignore-not-found", "--wait")
        cluster.apply(job)
        name = job["metadata"]["name"]

        def ended() -> Any:
            status = cluster.get("job", name)["status"]
            return status.get("succeeded") or status.get("failed")

        until("the demo's Job", ended, 600)
        said = cluster.kubectl("logs", f"job/{name}", "--tail=40")
        outcome = [line.strip() for line in said.splitlines() if "example" in line or "click rate" in line]
        cluster.expect(
            bool(cluster.get("job", name)["status"].get("succeeded")), f"the demo: {'; '.join(outcome[-3:])}", said
        )


def generation(each: dict[str, Any]) -> object:
    """What changes with an object's specification."""
    return each["metadata"].get("generation") or (
        each["metadata"]["uid"],
        json.dumps(each.get("data") or each.get("rules")),
    )


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-second", type=float, default=25, help="visits of the Python client")
    parser.add_argument("--pods", type=int, default=30, help="random pods that are deleted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="shorter pauses")
    parser.add_argument(
        "--phase", choices=PHASES, action="append", help="some of them, in a cluster that has the others"
    )
    parser.add_argument("--previous", default="", help="git revision with the previous version of the chart")
    parser.add_argument("--shown", action="store_true", help="leave out the demo and the changes of mesh.yaml")
    parser.add_argument("--set", action="append", default=[], help="as helm's --set-json")
    arguments = parser.parse_args()
    phases, problems = arguments.phase or PHASES, list[str]()
    demo = Cluster("demo", problems)
    more = [word for one in arguments.set for word in ("--set-json", one)]
    proof = Proof(demo, arguments.per_second, arguments.seed, more)
    began = time.monotonic()
    try:
        if "install" in phases:
            proof.install(arguments.previous)
        if "doors" in phases:
            doors.arrows(demo)
        if "traffic" in phases:
            proof.traffic.start()
            proof.under_load(arguments.pods, quick=arguments.quick, shown=arguments.shown)
            demo.helm("uninstall", "mesh", "--wait")
        if "secured" in phases:
            secured.prove(Cluster("secured", problems))
        if "cold" in phases:
            cold.prove(Cluster("cold", problems))
    except Failed as error:
        problems.append(str(error))
    print(proof.traffic.report())
    for problem in problems:
        print(f"✘ {problem}")
    print(f"{'failed' if problems else 'passed'} after {(time.monotonic() - began) / 60:.0f} min: {', '.join(phases)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
