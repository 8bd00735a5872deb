"""Events of the pod, as the API server gets them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from banditmesh.runtime.pod_events import MESSAGE_CHARACTERS, PodEvents


class Api(HTTPServer):
    """Takes events, or answers with an error."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 201
        self.got: list[tuple[str, str, dict[str, Any]]] = []


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "namespace").write_text("demo")
    (tmp_path / "token").write_text("first\n")
    return tmp_path


def events(api: Api, account: Path) -> PodEvents:
    return PodEvents("crs-engine", "mesh-engine-1", "u-1", account, f"http://127.0.0.1:{api.server_port}")


async def test_an_event_names_the_pod_the_reason_and_the_words(api: Api, account: Path) -> None:
    await events(api, account).send("Warning", "MeshYamlRefused", "sauces: did you mean 'sources'?" + "x" * 5000)
    ((path, authorization, event),) = api.got
    assert (path, authorization) == ("/api/v1/namespaces/demo/events", "Bearer first")
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "demo", "name": "mesh-engine-1", "uid": "u-1",
    }  # fmt: skip
    assert (event["type"], event["reason"]) == ("Warning", "MeshYamlRefused")
    assert event["message"].startswith("sauces: did you mean")
    assert len(event["message"]) == MESSAGE_CHARACTERS
    assert event["metadata"] == {"generateName": "mesh-engine-1.", "namespace": "demo"}


async def test_a_token_that_was_replaced_is_read_again(api: Api, account: Path) -> None:
    (account / "token").write_text("second")
    await events(api, account).send("Normal", "MeshYamlTaken", "")
    assert api.got[0][1] == "Bearer second"


async def test_what_cannot_be_sent_is_logged_and_nothing_else(api: Api, account: Path) -> None:
    api.status = 403
    with capture_logs() as logs:
        await events(api, account).send("Normal", "MeshYamlTaken", "")
        (account / "token").unlink()
        await events(api, account).send("Normal", "MeshYamlTaken", "")
        await PodEvents("joiner", "p", account=account).send("Normal", "MeshYamlTaken", "")  # outside of a cluster
    assert ["Forbidden" in logs[0]["error"], "token" in logs[1]["error"]] == [True, True]
    assert [line["log_level"] for line in logs] == ["warning"] * 3
