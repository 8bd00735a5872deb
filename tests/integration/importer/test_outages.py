"""An importer whose Redis is away, refuses the login, or permits nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.local.valkey import Valkey
from banditmesh.runtime.clock import SystemClock
from tests.support.eventually import eventually_so
from tests.support.importing import mesh_yaml, running_importer
from tests.support.mapping_files import mapping, write

Act = Callable[[Valkey], object]


def _kill_clients(server: Valkey) -> None:
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _rotate(server: Valkey) -> None:
    server.command("ACL", "SETUSER", "app", "resetpass", ">other")
    _kill_clients(server)


FAULTS: dict[str, tuple[Act, Act]] = {
    "its password is another one": (
        _rotate,
        lambda server: server.command("ACL", "SETUSER", "app", "resetpass", ">pw"),
    ),
    "its user may nothing": (
        lambda server: server.command("ACL", "SETUSER", "app", "-@all"),
        lambda server: server.command("ACL", "SETUSER", "app", "+@all"),
    ),
    "it is full": (
        lambda server: server.command("CONFIG", "SET", "maxmemory", "1"),
        lambda server: server.command("CONFIG", "SET", "maxmemory", "0"),
    ),
    "it is a replica of nobody": (
        lambda server: server.command("REPLICAOF", "127.0.0.1", "1"),
        lambda server: server.command("REPLICAOF", "NO", "ONE"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_task_crashes_by_a_redis_that_is_away_and_imports_go_on_when_it_is_back(
    tmp_path: Path, fault: str
) -> None:
    begin, end = FAULTS[fault]
    with Valkey(tmp_path / "valkey") as server:
        server.command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")
        url = f"redis://app:pw@127.0.0.1:{server.port}"
        async with running_importer(tmp_path, url, mesh_yaml()) as importer:
            await eventually_so(lambda: not importer.server.health.obstacles())
            with capture_logs() as logs:
                begin(server)
                await eventually_so(lambda: "redis" in importer.server.health.obstacles())
                failing = SystemClock().monotonic_s()
                await eventually_so(lambda: SystemClock().monotonic_s() - failing > 2)
                assert importer.server.health.obstacles() <= {"redis", "redis settings"}
                end(server)
                await eventually_so(lambda: not importer.server.health.obstacles())
            job = await importer.import_mapping(write(tmp_path / "m.csv", mapping(2, "sun")))
            assert job.state == pb.IMPORT_STATE_SUCCEEDED
            for task in ("import jobs", "live versions"):
                crashes = importer.server.registry.get_sample_value("banditmesh_task_crashes_total", {"task": task})
                assert not crashes, task
            if fault != "its user may nothing":  # each command that is refused is a line of its own
                downs = [line["dependency"] for line in logs if line["event"] == "dependency down"]
                assert downs == ["redis"]
