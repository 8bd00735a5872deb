"""The access table at work: over real sockets, with real certificates and keys, on the mesh's own methods."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sysconfig
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from banditmesh.client import MeshClient, Nothing
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2 as engine_pb
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2_grpc as engine_grpc
from banditmesh.contracts.importer.v1 import importer_pb2 as importer_pb
from banditmesh.contracts.importer.v1 import importer_pb2_grpc as importer_grpc
from banditmesh.contracts.joiner.v1 import joiner_pb2
from banditmesh.contracts.learner.v1 import learner_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.local.authority import LOCAL_NAMES, Authority
from banditmesh.runtime.access import METHODS, require_service
from banditmesh.runtime.access_table import AccessTable
from banditmesh.runtime.channels import Connection
from banditmesh.runtime.errors import Unauthenticated
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.tls import ClientTls, ServerTls

GRPCURL = Path(sysconfig.get_path("scripts")) / "grpcurl"
KEYS = {"oncall": "the-operators-key", "backend": "the-backends-key", "slow": "a-slow-callers-key"}
DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
SERVICES = (
    (engine_pb, "CrsEngineService"),
    (importer_pb, "ImporterService"),
    (joiner_pb2, "JoinerService"),
    (learner_pb2, "LearnerService"),
    (tracker_pb2, "EventTrackerService"),
)


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


TABLE = AccessTable.model_validate(
    {
        "callers": {
            "weather-team": {"roles": ["service:weather"], "dns": ["weather.teams.example"]},
            "app": {"roles": ["app"], "spiffe": ["spiffe://mesh/ns/app/sa/backend"]},
            "backend": {"roles": ["app"], "key_sha256": [sha256(KEYS["backend"])]},
            "oncall": {"roles": ["operator"], "key_sha256": [sha256(KEYS["oncall"])]},
            "slow": {"roles": ["app"], "key_sha256": [sha256(KEYS["slow"])], "calls_per_s": 1.0},
        }
    }
)


class Engine(engine_grpc.CrsEngineServiceServicer):
    async def SelectContent(self, request: Any, context: Any) -> Any:
        return engine_pb.SelectContentResponse()

    async def BatchSelectContents(self, request: Any, context: Any) -> Any:
        nothing = engine_pb.Selection(no_content=engine_pb.NoContent(reason=engine_pb.NO_CONTENT_REASON_NO_CANDIDATES))
        result = engine_pb.BatchSelectContentsResult(selection=nothing)
        return engine_pb.BatchSelectContentsResponse(results=[result] * len(request.requests))

    async def GetModelStatus(self, request: Any, context: Any) -> Any:
        return engine_pb.GetModelStatusResponse()


class Importer(importer_grpc.ImporterServiceServicer):
    async def RefreshContents(self, request: Any, context: Any) -> Any:
        return importer_pb.RefreshContentsResponse()

    async def GetImportJob(self, request: Any, context: Any) -> Any:
        require_service(request.job_id)  # the job of that name is that service's
        return importer_pb.GetImportJobResponse()


@dataclass
class World:
    server: Server
    authority: Authority

    def tls(self, name: str = "", **identity: Any) -> ClientTls:
        """Trusts the server; shows a certificate where one is named."""
        return ClientTls(self.authority.ca, *(self.authority.issue(name, **identity) if name else ()))

    async def call(self, method: str, request: Any, tls: ClientTls, key: str = "") -> grpc.StatusCode:
        stub: Any = importer_grpc.ImporterServiceStub if hasattr(importer_pb, f"{method}Request") else None
        stub = stub or engine_grpc.CrsEngineServiceStub
        connection = Connection(f"localhost:{self.server.port}", stub, tls)
        metadata = (("authorization", f"Bearer {key}"),) if key else ()
        try:
            await getattr(connection.stub, method)(request, timeout=10, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code()
        finally:
            await connection.close()
        return grpc.StatusCode.OK

    def refused(self, method: str, role: str, reason: str) -> float | None:
        labels = {"method": f"/banditmesh.{method}", "role": role, "reason": reason}
        return self.server.registry.get_sample_value("banditmesh_access_refused_total", labels)


def add_services(server: Server) -> None:
    server.add_service(
        engine_pb.DESCRIPTOR.services_by_name["CrsEngineService"],
        engine_grpc.add_CrsEngineServiceServicer_to_server,
        Engine(),
    )
    server.add_service(
        importer_pb.DESCRIPTOR.services_by_name["ImporterService"],
        importer_grpc.add_ImporterServiceServicer_to_server,
        Importer(),
    )
    server.guard(TABLE)


@pytest_asyncio.fixture
async def mutual(tmp_path: Path) -> AsyncIterator[World]:
    """A server that wants certificates."""
    authority = Authority(tmp_path / "pki")
    tls = ServerTls(*authority.issue("server", names=LOCAL_NAMES), authority.ca)
    server = Server(ServerOptions(grace_s=0, tls=tls), registry=CollectorRegistry())
    add_services(server)
    async with server:
        yield World(server, authority)


@pytest_asyncio.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[World]:
    """A server that speaks TLS and wants keys."""
    authority = Authority(tmp_path / "pki")
    tls = ServerTls(*authority.issue("server", names=LOCAL_NAMES))
    server = Server(ServerOptions(grace_s=0, tls=tls), registry=CollectorRegistry())
    add_services(server)
    async with server:
        yield World(server, authority)


SELECT = ("SelectContent", engine_pb.SelectContentRequest(placement="head", user_id="ann"))
STATUS = ("GetModelStatus", engine_pb.GetModelStatusRequest())


def refresh(service: str) -> tuple[str, Any]:
    return "RefreshContents", importer_pb.RefreshContentsRequest(service=service)


def test_the_roles_of_every_method_of_the_five_services_are_decided() -> None:
    there_is = {
        f"/{module.DESCRIPTOR.services_by_name[name].full_name}/{method.name}"
        for module, name in SERVICES
        for method in module.DESCRIPTOR.services_by_name[name].methods
    }
    assert there_is == set(METHODS)


async def test_certificates_open_what_their_roles_allow(mutual: World) -> None:
    app = mutual.tls("app", uris=["spiffe://mesh/ns/app/sa/backend"])
    team = mutual.tls("team", names=["weather.teams.example"])
    other = mutual.tls("other", names=["weather.teams.example.evil"], uris=["spiffe://mesh/ns/app/sa/backend2"])
    outcomes = {
        ("app", "select"): await mutual.call(*SELECT, app),
        ("app", "status"): await mutual.call(*STATUS, app),
        ("app", "refresh"): await mutual.call(*refresh("weather"), app),
        ("team", "select"): await mutual.call(*SELECT, team),
        ("team", "own"): await mutual.call(*refresh("weather"), team),
        ("team", "not its own"): await mutual.call(*refresh("comics"), team),
        ("other", "select"): await mutual.call(*SELECT, other),
    }
    assert outcomes == {
        ("app", "select"): grpc.StatusCode.OK,
        ("app", "status"): DENIED,
        ("app", "refresh"): DENIED,
        ("team", "select"): DENIED,
        ("team", "own"): grpc.StatusCode.OK,
        ("team", "not its own"): DENIED,
        ("other", "select"): UNKNOWN,
    }
    assert mutual.refused("crs_engine.v1.CrsEngineService/SelectContent", "app", "denied") == 1
    assert mutual.refused("crs_engine.v1.CrsEngineService/SelectContent", "app", "unauthenticated") == 1
    assert mutual.refused("crs_engine.v1.CrsEngineService/GetModelStatus", "operator", "denied") == 1
    assert mutual.refused("importer.v1.ImporterService/RefreshContents", "service", "denied") == 2


async def test_what_belongs_to_a_service_is_shown_to_that_service_alone(mutual: World) -> None:
    team = mutual.tls("team", names=["weather.teams.example"])
    codes = [
        await mutual.call("GetImportJob", importer_pb.GetImportJobRequest(job_id=service), team)
        for service in ("weather", "comics")
    ]
    assert codes == [grpc.StatusCode.OK, DENIED]


async def test_keys_open_what_their_roles_allow_and_an_unknown_one_opens_nothing(keyed: World) -> None:
    tls = keyed.tls()
    assert await keyed.call(*SELECT, tls, KEYS["backend"]) is grpc.StatusCode.OK
    assert await keyed.call(*STATUS, tls, KEYS["backend"]) is DENIED
    assert await keyed.call(*STATUS, tls, KEYS["oncall"]) is grpc.StatusCode.OK
    assert await keyed.call(*refresh("comics"), tls, KEYS["oncall"]) is grpc.StatusCode.OK
    assert await keyed.call(*SELECT, tls, "guessed") is UNKNOWN
    assert await keyed.call(*SELECT, tls, sha256(KEYS["backend"])) is UNKNOWN
    assert await keyed.call(*SELECT, tls) is UNKNOWN


async def test_the_client_library_calls_with_its_key_and_says_what_is_wrong_with_another(keyed: World) -> None:
    address = f"localhost:{keyed.server.port}"
    keys = iter([KEYS["backend"], "guessed"])
    async with MeshClient(address, address, tls=keyed.tls(), api_key=lambda: next(keys)) as client:
        assert isinstance(await client.select("head", "ann", deadline_s=10), Nothing)
        with pytest.raises(Unauthenticated, match="not one of the access table"):
            await client.select("head", "ann", deadline_s=10)


async def test_a_caller_with_a_rate_is_held_to_it_and_others_are_not(keyed: World) -> None:
    tls = keyed.tls()
    codes = [await keyed.call(*SELECT, tls, KEYS["slow"]) for _ in range(2)]
    assert codes == [grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert await keyed.call(*SELECT, tls, KEYS["backend"]) is grpc.StatusCode.OK
    assert keyed.refused("crs_engine.v1.CrsEngineService/SelectContent", "app", "rate") == 1


async def test_each_admin_call_leaves_a_line_and_no_secret_in_it(keyed: World) -> None:
    with capture_logs() as logs:
        request = engine_pb.GetModelStatusRequest(placement="head")
        await keyed.call("GetModelStatus", request, keyed.tls(), KEYS["oncall"])
        await keyed.call(*SELECT, keyed.tls(), KEYS["backend"])
    (line,) = [each for each in logs if each.get("audit")]
    assert (line["caller"], line["code"], line["placement"]) == ("oncall", "OK", "head")
    assert not any(key in str(logs) for key in KEYS.values())


async def test_a_value_of_megabytes_makes_no_line_of_megabytes(keyed: World) -> None:
    with capture_logs() as logs:
        request = engine_pb.GetModelStatusRequest(placement="x" * 1_000_000)
        await keyed.call("GetModelStatus", request, keyed.tls(), KEYS["oncall"])
    (line,) = [each for each in logs if each.get("audit")]
    assert line["placement"].startswith("xxx")
    assert len(str(line)) < 1000


async def test_health_needs_nobody(keyed: World) -> None:
    connection = Connection(f"localhost:{keyed.server.port}", health_pb2_grpc.HealthStub, keyed.tls())
    answer = await connection.stub.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await connection.close()


async def test_without_a_table_everything_is_open_and_that_is_said() -> None:
    with capture_logs() as logs:
        server = Server(ServerOptions(), registry=CollectorRegistry())
        add_services(server)
        assert server.registry.get_sample_value("banditmesh_access_open") == 0
        server.guard(None)
    assert server.registry.get_sample_value("banditmesh_access_open") == 1
    assert any(line["log_level"] == "warning" and "no access table" in line["event"] for line in logs)
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with capture_logs() as logs:
            request = engine_pb.GetModelStatusRequest(placement="head")
            await engine_grpc.CrsEngineServiceStub(channel).GetModelStatus(request)
        (line,) = [each for each in logs if each.get("audit")]
        assert (line["caller"], line["placement"]) == ("anybody", "head")


async def test_a_new_table_counts_from_the_next_call_on(keyed: World) -> None:
    assert await keyed.call(*SELECT, keyed.tls(), KEYS["backend"]) is grpc.StatusCode.OK
    callers = {name: caller for name, caller in TABLE.callers.items() if name != "backend"}
    keyed.server.guard(TABLE.model_copy(update={"callers": callers}))
    assert await keyed.call(*SELECT, keyed.tls(), KEYS["backend"]) is UNKNOWN


@pytest.mark.parametrize(
    ("key", "words"),
    [("", ["Unauthenticated", "authorization: Bearer KEY"]), (KEYS["backend"], ["PermissionDenied", "needs operator"])],
)
async def test_refusals_read_well_with_grpcurl(keyed: World, key: str, words: list[str]) -> None:
    command = [str(GRPCURL), "-cacert", str(keyed.authority.ca)]
    if key:
        command += ["-H", f"authorization: Bearer {key}"]
    method = "banditmesh.crs_engine.v1.CrsEngineService/GetModelStatus"
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = await asyncio.to_thread(
        lambda: subprocess.run(
            [*command, f"localhost:{keyed.server.port}", method],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=environment,
        )
    )
    assert done.returncode != 0
    assert all(word in done.stderr for word in words), done.stderr
