"""Words to the operator where Kubernetes keeps them: an event of the service's own pod, as ``kubectl describe pod`` and
``kubectl get events`` show it.

Needs the pod's name and uid (the downward API), and a token of an account that may create events, mounted where
Kubernetes mounts it. Without a pod's name nothing is sent; what cannot be sent is logged, and holds nothing up.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from banditmesh.runtime.logging import get_logger

log = get_logger(__name__)

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WITHIN_S: Final = 5.0
MESSAGE_CHARACTERS: Final = 1000  # the API takes 1 024
EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True)
class PodEvents:
    """Sends events of one pod.

    Attributes:
        service: Who speaks, such as ``crs-engine``.
        pod: The pod's name.
        uid: Its uid; without it ``kubectl describe`` does not find the event.
        account: The folder with ``token``, ``ca.crt`` and ``namespace``. The token is read each time: it is replaced.
        server: The API's address; empty: that of the environment.
    """

    service: str
    pod: str
    uid: str = ""
    account: Path = ACCOUNT
    server: str = ""

    async def send(self, kind: EventType, reason: str, message: str) -> None:
        """Create one event. Never raises."""
        try:
            await asyncio.to_thread(self._post, kind, reason, message)
        except (OSError, ValueError, KeyError) as error:  # HTTPError and URLError are OSErrors
            log.warning("no Kubernetes event could be made", reason=reason, pod=self.pod, error=str(error))

    def _post(self, kind: EventType, reason: str, message: str) -> None:
        namespace = (self.account / "namespace").read_text().strip()
        server = self.server or _server(os.environ)
        request = urllib.request.Request(
            f"{server}/api/v1/namespaces/{namespace}/events",
            data=json.dumps(self._event(namespace, kind, reason, message)).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {(self.account / 'token').read_text().strip()}",
            },
        )
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]  # it is in the cluster itself
        if server.startswith("https:"):
            context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(request, timeout=WITHIN_S) as answer:
            answer.read()

    def _event(self, namespace: str, kind: EventType, reason: str, message: str) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        pod = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": self.pod, "uid": self.uid}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self.pod}.", "namespace": namespace},
            "involvedObject": {name: value for name, value in pod.items() if value},
            "type": kind,
            "reason": reason,
            "message": message[:MESSAGE_CHARACTERS],
            "source": {"component": f"banditmesh-{self.service}"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _server(environ: Mapping[str, str]) -> str:
    """Where the API is, as every pod is told. Raises KeyError outside of a cluster."""
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
