"""A mesh with mutual TLS and an access table: who gets in and who does not, in a namespace of its own."""

from __future__ import annotations

import json
import tempfile
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from banditmesh.local.authority import Authority
from tests.cluster.kube import CHART, SERVICES, TAG, Cluster, Object, config_map, until

ACCESS = """
access:
  callers:
    app: {roles: [app], spiffe: ["spiffe://mesh/app"]}
    greeter: {roles: ["service:hello"], dns: [greeter.example]}
    oncall: {roles: [operator], spiffe: ["spiffe://mesh/oncall"]}
    verify: {roles: [app, "service:hello", operator], spiffe: ["spiffe://mesh/verify"]}
"""


def secret(name: str, ca: Path, pair: tuple[Path, Path]) -> Object:
    files = {"ca.crt": ca, "tls.crt": pair[0], "tls.key": pair[1]}
    data = {key: b64encode(path.read_bytes()).decode() for key, path in files.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}


def server_names(namespace: str) -> list[str]:
    return [name for service in SERVICES for name in (f"mesh-{service}", f"mesh-{service}.{namespace}.svc")]


def prove(cluster: Cluster) -> None:
    """Install, let everybody knock, and replace the servers' certificate as they run."""
    cluster.make_namespace()
    with tempfile.TemporaryDirectory() as folder:
        authority, forger = Authority(Path(folder) / "ours"), Authority(Path(folder) / "forged")
        yesterday = datetime.now(UTC) - timedelta(days=1)
        server = authority.issue("server", names=server_names(cluster.namespace))
        clients = {
            "app": authority.issue("app", uris=["spiffe://mesh/app"]),
            "greeter": authority.issue("greeter", names=["greeter.example"]),
            "oncall": authority.issue("oncall", uris=["spiffe://mesh/oncall"]),
            "verify": authority.issue("verify", uris=["spiffe://mesh/verify"]),
            "unknown": authority.issue("unknown", uris=["spiffe://mesh/somebody"]),
            "expired": authority.issue("expired", uris=["spiffe://mesh/app"], until=yesterday),
            "forged": forger.issue("app", uris=["spiffe://mesh/app"]),
        }
        secrets = [secret(f"client-{name}", authority.ca, pair) for name, pair in clients.items()]
        cluster.apply(secret("mesh-certificates", authority.ca, server), *secrets)
        _install(cluster)
        said = cluster.helm("test", "mesh", "--logs", "--timeout", "5m")
        cluster.expect("the engine has loaded" in said, "helm test goes around the loop with mutual TLS and a role")
        _knock(cluster, list(clients))
        fresh = authority.issue("fresh", names=server_names(cluster.namespace), until=yesterday + timedelta(days=20))
        _rotate(cluster, secret("mesh-certificates", authority.ca, fresh))
    cluster.helm("uninstall", "mesh", "--wait")
    cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=false")


def _install(cluster: Cluster) -> None:
    written = yaml.safe_load((CHART / "values-evaluation.yaml").read_text())
    sets = {
        "mesh.config": written["mesh"]["config"] + ACCESS,
        "tls": {"existingSecret": "mesh-certificates", "clientAuth": True},
        "test.tlsSecret": "client-verify",
        "engine.replicas": 1,
        "tracker.replicas": 1,
    }
    words = [word for key, value in sets.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
    values = ["-f", CHART / "values-evaluation.yaml", "--set", f"image.tag={TAG}", *words]
    cluster.helm("install", "mesh", CHART, *values, "--wait", "--timeout", "15m")


def _knock(cluster: Cluster, clients: list[str]) -> None:
    cluster.apply(config_map("knock", Path(__file__).with_name("knock.py")))
    volumes = [{"name": name, "secret": {"secretName": f"client-{name}", "defaultMode": 0o440}} for name in clients]
    mounts = [{"name": name, "mountPath": f"/clients/{name}"} for name in clients]
    said = cluster.run(
        "knock",
        ["python", "/knock/knock.py"],
        labels={"banditmesh/role": "operator"},
        volumes=[*volumes, {"name": "knock", "configMap": {"name": "knock"}}],
        mounts=[*mounts, {"name": "knock", "mountPath": "/knock"}],
    )
    for line in said.splitlines():
        if line.startswith("{"):
            each = json.loads(line)
            cluster.expect(each["found"] in each["expected"], f"{each['who']}: {each['found']}", each["details"])


def _rotate(cluster: Cluster, fresh: Object) -> None:
    """What cert-manager does: the Secret changes, and nothing restarts."""
    pod = cluster.pods("engine")[0]["metadata"]["name"]
    expires = 'banditmesh_tls_certificate_expires_timestamp_seconds{file="certificate"}'
    before = cluster.metric(pod, expires)
    cluster.apply(fresh)

    def taken() -> bool:
        """A certificate is read at the next handshake: make one."""
        cluster.run("knock", ["python", "/knock/knock.py", "--once"], labels={"banditmesh/role": "operator"}, volumes=[
            {"name": "app", "secret": {"secretName": "client-app", "defaultMode": 0o440}},
            {"name": "knock", "configMap": {"name": "knock"}},
        ], mounts=[{"name": "app", "mountPath": "/clients/app"}, {"name": "knock", "mountPath": "/knock"}])  # fmt: skip
        return cluster.metric(pod, expires) != before

    took_s = until("the new certificate to be served", taken, 240)
    (status,) = cluster.get("pod", pod)["status"]["containerStatuses"]
    what = f"a replaced Secret is served after {took_s:.0f} s without a restart"
    cluster.expect(status["restartCount"] == 0, what, status["restartCount"])
