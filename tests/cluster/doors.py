"""What may reach what: network policies from pods of each role and out of each service, as real connections."""

from __future__ import annotations

from tests.cluster.kube import SERVICES, Cluster

TARGETS = {
    "importer": ("mesh-importer", 50051), "engine": ("mesh-engine", 50052), "tracker": ("mesh-tracker", 50053),
    "joiner": ("mesh-joiner", 50054), "learner": ("mesh-learner", 50055), "metrics": ("mesh-engine", 9090),
    "kafka": ("mesh-kafka", 9092), "valkey": ("mesh-valkey", 6379), "s3": ("mesh-s3", 8333),
    "provider": ("mesh-provider", 50061), "api server": ("kubernetes.default.svc", 443),
}  # fmt: skip
MAY: dict[str, set[str]] = {
    "app": {"engine", "tracker"},
    "team": {"importer"},
    "operator": set(SERVICES),
    "nobody": set(),
}
"""The arrows into the mesh, by the label of who calls. The API server is not ours to close to other pods."""
ARROWS = {
    "importer": {"valkey", "s3", "provider", "api server"},
    "engine": {"valkey", "s3", "api server"},
    "tracker": {"kafka", "api server"},
    "joiner": {"kafka", "valkey", "api server"},
    "learner": {"kafka", "s3", "api server"},
}
"""The arrows of the design, out of each service; the API server's for events alone."""
KNOCK = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def knock(word):
    name, host, port = word.split(',')
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        return name + '=open'
    except OSError:
        return name + '=closed'

with ThreadPoolExecutor(len(sys.argv)) as pool:
    print(*pool.map(knock, sys.argv[1:]), sep='\\n')
"""


def words(names: set[str]) -> list[str]:
    return [f"{name},{host},{port}" for name, (host, port) in TARGETS.items() if name in names]


def opened(said: str) -> set[str]:
    return {line.partition("=")[0] for line in said.splitlines() if line.endswith("=open")}


def arrows(cluster: Cluster) -> None:
    """Every target from a pod of each role, then from each service."""
    asked = set(TARGETS) - {"api server"}
    for role, may in MAY.items():
        said = cluster.run(f"knock-{role}", ["python", "-c", KNOCK, *words(asked)], labels={"banditmesh/role": role})
        found = opened(said)
        closed = len(asked) - len(found)
        cluster.expect(
            found == may, f"{role} reaches {', '.join(sorted(may)) or 'nothing'}; {closed} doors closed", found
        )
    for service, may in ARROWS.items():
        pod = cluster.pods(service)[0]["metadata"]["name"]
        asked = set(TARGETS) - {service, "metrics"}
        found = opened(cluster.inside(pod, KNOCK, *words(asked), container=service))
        closed = len(asked) - len(found)
        cluster.expect(found == may, f"{service} reaches {', '.join(sorted(may))}; {closed} doors closed", found)
