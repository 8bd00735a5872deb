"""The mesh as an object: servers that exist already, a folder of one's own, parts that end by themselves."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from banditmesh.local import ports
from banditmesh.local.claim import Claim
from banditmesh.local.kafka import Kafka
from banditmesh.local.process import Child, DidNotStart
from banditmesh.local.server import Command, Server
from banditmesh.local.stack import Existing, LocalMesh, Process, serving
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument, Unavailable
from tests.support.command import ROOT

QUICKSTART = ROOT / "banditmesh/quickstart/mesh.yaml"


@pytest.fixture(autouse=True)
def _services_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def mesh_with_prefix(folder: Path, prefix: str) -> Path:
    config = folder / "mesh.yaml"
    config.write_text(f"{QUICKSTART.read_text()}\nkafka: {{topic_prefix: {prefix}}}\n")
    return config


@pytest.mark.timeout(120)
def test_on_servers_that_exist_already_only_the_services_are_started_and_what_ends_is_started_again(
    tmp_path: Path, kafka: Kafka, fresh_redis: str, fresh_store: str, fresh_topic_prefix: str
) -> None:
    existing = Existing(kafka.bootstrap, fresh_redis, fresh_store)
    config = mesh_with_prefix(tmp_path, fresh_topic_prefix)
    told: list[tuple[str, str]] = []
    mesh = LocalMesh(tmp_path / "mesh", config, existing, progress=lambda part, what: told.append((part, what)))
    with mesh:
        assert mesh.servers == {}
        assert mesh.settings["BANDITMESH_STORE"] == fresh_store
        assert all(map(serving, mesh.addresses.values()))
        assert mesh.restart_ended() == []

        tracker = mesh.services["tracker"]
        before, address = tracker.pid, tracker.address
        pidfd = os.pidfd_open(before)
        os.kill(before, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        os.close(pidfd)
        assert [(ended.name, ended.how) for ended in mesh.restart_ended()] == [("tracker", "SIGKILL")]
        assert tracker.pid != before
        assert serving(address)
        assert ("tracker", "ended (SIGKILL), starting again") in told
    assert not any(service.running for service in mesh.services.values())


class Oven(Server):
    """Is hot when it has run so often as ``kills`` says and once more; until then a SIGKILL ends it as it starts."""

    name, n_ports = "oven", 0
    kills = 0

    def _command(self) -> Command:
        self.kills -= 1
        return Command(["sh", "-c", "kill -9 $$" if self.kills >= 0 else "touch hot; exec sleep 600"])

    def _ready(self) -> bool:
        return (self.folder / "hot").exists()


def test_what_is_killed_while_it_is_started_again_is_tried_again(tmp_path: Path) -> None:
    told: list[str] = []
    mesh = LocalMesh(tmp_path, QUICKSTART, progress=lambda part, what: told.append(what.partition(" after")[0]))
    oven = Oven(tmp_path / "oven", ports_wanted=())
    oven.kills = 1
    with pytest.raises(DidNotStart, match="SIGKILL"):
        oven.start()
    mesh.services["oven"] = oven  # type: ignore[assignment]
    oven.kills = 1
    assert [ended.how for ended in mesh.restart_ended()] == ["SIGKILL"]
    assert [ended.how for ended in mesh.restart_ended()] == ["SIGKILL"]
    assert mesh.restart_ended() == []
    mesh.stop()
    again = "ended (SIGKILL), starting again"
    assert told == [again, "starting", "did not start", again, "starting", "ready", "stopping", "stopped"]


class Answered(Exception):
    """What the question whether it is ready was answered."""


class OvenWithPorts(Process):
    """Never serves; tells what is answered for it."""

    def _command(self) -> Command:
        return Command(["sleep", "600"])

    def _ready(self) -> bool:
        raise Answered(super()._ready())


def test_a_server_of_another_mesh_on_its_port_does_not_make_a_service_ready(tmp_path: Path) -> None:
    of_another = grpc.server(ThreadPoolExecutor(1))
    health = HealthServicer()
    health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, of_another)

    class Late(OvenWithPorts):
        def _spawn(self, command: Command) -> Child:  # somebody is faster: after the look whether the port is free
            assert of_another.add_insecure_port(self.address)
            of_another.start()
            return super()._spawn(command)

    service = Late("oven", tmp_path / "oven", logs=tmp_path / "logs", argv=[], env={})
    with pytest.raises(Answered, match="False"):
        service.start()
    assert serving(service.address)
    of_another.stop(None)


def test_a_folder_has_one_mesh_at_a_time(tmp_path: Path) -> None:
    nothing_there = Existing(kafka=f"127.0.0.1:{ports.free(1)[0]}")
    first = Claim(tmp_path)
    with pytest.raises(DidNotStart, match=rf"another one runs on .* already \(process {os.getpid()}\)"):
        LocalMesh(tmp_path, QUICKSTART, nothing_there).start()
    first.release()
    for _ in range(2):  # the second time: a start that failed has let go of the folder
        with pytest.raises(Unavailable):
            LocalMesh(tmp_path, QUICKSTART, nothing_there).start()


def test_a_service_that_does_not_start_ends_all_that_did(tmp_path: Path, kafka: Kafka, fresh_redis: str) -> None:
    config = tmp_path / "mesh.yaml"
    config.write_text("services: {}\n")
    mesh = LocalMesh(tmp_path / "mesh", config, Existing(kafka=kafka.bootstrap, redis=fresh_redis))
    with pytest.raises(DidNotStart) as failed:
        mesh.start()
    assert "it exited with code 2" in str(failed.value)
    assert "mesh.yaml is not valid" in str(failed.value)
    assert not any(service.running for service in mesh.services.values())


@pytest.mark.parametrize(
    ("existing", "error"),
    [
        (Existing(kafka="127.0.0.1:{free}"), Unavailable),
        (Existing(redis="redis://127.0.0.1:{free}"), Unavailable),
        (Existing(redis="redis+cluster://127.0.0.1:{free}"), Unavailable),
        (Existing(redis="redis+sentinel://127.0.0.1:{free}/primary"), Unavailable),
        (Existing(redis="http://127.0.0.1:{free}"), InvalidArgument),
        (Existing(store="file:///proc/no-folder"), FailedPrecondition),
    ],
)
def test_a_server_that_is_not_there_is_noticed_before_anything_starts(
    tmp_path: Path, existing: Existing, error: type[Exception]
) -> None:
    free = str(ports.free(1)[0])
    filled = Existing(
        *(text and text.replace("{free}", free) for text in (existing.kafka, existing.redis, existing.store))
    )
    told: list[str] = []
    with pytest.raises(error):
        LocalMesh(tmp_path, QUICKSTART, filled, progress=lambda part, what: told.append(part)).start()
    assert told == []


def test_a_bucket_that_does_not_exist_is_noticed_before_anything_starts(tmp_path: Path, fresh_store: str) -> None:
    missing = fresh_store.replace("banditmesh-tests", "no-such-bucket")
    with pytest.raises(FailedPrecondition, match="no-such-bucket"):
        LocalMesh(tmp_path, QUICKSTART, Existing(store=missing)).start()
