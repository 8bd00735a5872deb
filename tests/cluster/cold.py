"""How long an engine's pod takes from its creation to READY with a model of 50 MB in the store."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import yaml

from tests.cluster.kube import CHART, TAG, Cluster, Object, config_map, say, until

PLACEMENT = """
placements:
  large:
    sources: [hello/greeting]
    experiment: {variants: {learned: {weight: 1, policy: {linear: {}}}}}
"""
MODEL_MB = 50
STARTS = 3
GOAL_S = 5.0


def prove(cluster: Cluster) -> None:
    """In a namespace of its own: no learner, since the model is published by hand."""
    cluster.make_namespace()
    written = yaml.safe_load((CHART / "values-evaluation.yaml").read_text())
    config = written["mesh"]["config"].replace("\nplacements:", PLACEMENT.rstrip())
    sets = {"mesh.config": config, "test.placement": "hello", "engine.replicas": 1}
    sets |= {f"{service}.enabled": False for service in ("joiner", "learner", "tracker")}
    words = [word for key, value in sets.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
    values = ["-f", CHART / "values-evaluation.yaml", "--set", f"image.tag={TAG}", *words]
    cluster.helm("install", "mesh", CHART, *values, "--wait", "--timeout", "15m")
    bytes_ = _publish(cluster)
    for number in range(STARTS):
        before = cluster.pods("engine")[0]
        cluster.kubectl("delete", "pod", before["metadata"]["name"], "--wait=true", "--grace-period=1")
        until("the new engine", lambda before=before: _ready(cluster, before["metadata"]["uid"]) is not None)
        created_s, init_s, started_s, ready_s = _ready(cluster, before["metadata"]["uid"]) or (0.0,) * 4
        took_s = ready_s - created_s
        parts = (
            f"mesh.yaml checked after {init_s - created_s:.0f} s, container started after {started_s - created_s:.0f}"
        )
        cluster.expect(
            took_s <= GOAL_S or number < STARTS - 1,  # the last one: the first ones warm the node's caches
            f"engine READY {took_s:.0f} s after its pod was made, {ready_s - started_s:.0f} s after its start; {parts}",
        )
    pod = cluster.pods("engine")[0]["metadata"]["name"]
    loaded = cluster.metric(pod, 'banditmesh_engine_model_version{model="linear')
    cluster.expect(loaded >= 1, f"it serves the model of {bytes_ / 1e6:.0f} MB", loaded)
    cluster.helm("uninstall", "mesh", "--wait")
    cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=false")


def _publish(cluster: Cluster) -> int:
    """Bytes of the model that a pod has made and put into the store."""
    cluster.apply(config_map("large", Path(__file__).with_name("large_model.py")))
    container = cluster.get("deployment", "mesh-engine")["spec"]["template"]["spec"]["containers"][0]
    store = [each for each in container["env"] if each["name"] == "BANDITMESH_STORE"]
    (secret,) = (each["secretRef"]["name"] for each in container["envFrom"])
    keys = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for key in cluster.get("secret", secret)["data"]
    ]
    labels = {
        "app.kubernetes.io/name": "banditmesh", "app.kubernetes.io/instance": "mesh",
        "app.kubernetes.io/component": "test",
    }  # fmt: skip
    said = cluster.run(
        "large",
        ["python", "/large/large_model.py", "large", str(MODEL_MB)],
        labels=labels,
        env=[*store, *keys],
        volumes=[
            {"name": "large", "configMap": {"name": "large"}},
            {"name": "mesh", "configMap": {"name": "mesh-mesh"}},
        ],
        mounts=[{"name": "large", "mountPath": "/large"}, {"name": "mesh", "mountPath": "/etc/banditmesh"}],
        wait_s=600,
    )
    say(said.strip().splitlines()[-1])
    return int(re.findall(r"(\d+) bytes", said)[0])


def _ready(cluster: Cluster, not_uid: str) -> tuple[float, float, float, float] | None:
    """When the engine's pod was made, its mesh.yaml was checked, its container started, and it was READY; None: it is
    not yet. Kubernetes notes whole seconds."""
    pods: list[Object] = [pod for pod in cluster.pods("engine") if pod["metadata"]["uid"] != not_uid]
    if not pods:
        return None
    (pod,) = pods
    conditions = {each["type"]: each for each in pod["status"].get("conditions", [])}
    if conditions.get("Ready", {}).get("status") != "True":
        return None
    (init,) = pod["status"]["initContainerStatuses"]
    (engine,) = pod["status"]["containerStatuses"]
    moments = [
        pod["metadata"]["creationTimestamp"],
        init["state"]["terminated"]["finishedAt"],
        engine["state"]["running"]["startedAt"],
        conditions["Ready"]["lastTransitionTime"],
    ]
    a, b, c, d = (datetime.fromisoformat(moment).timestamp() for moment in moments)
    return a, b, c, d
