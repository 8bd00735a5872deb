"""TLS and mutual TLS: who gets in, who does not, and that certificates are replaced while the server runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from banditmesh.local.authority import LOCAL_NAMES, Authority
from banditmesh.runtime import channels
from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.channels import Connection
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.serve import Server, ServerOptions
from banditmesh.runtime.tls import ClientTls, ServerTls
from tests.support.echo import DESCRIPTOR, NAME, Echo, EchoStub, add_echo_to_server

GRPCURL = Path(sysconfig.get_path("scripts")) / "grpcurl"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@asynccontextmanager
async def serving(tls: ServerTls, servicer: Echo | None = None, **options: Any) -> AsyncIterator[Server]:
    server = Server(ServerOptions(grace_s=0, tls=tls, **options), registry=CollectorRegistry())
    server.add_service(DESCRIPTOR, add_echo_to_server, servicer or Echo())
    async with server:
        yield server


async def call(server: Server, tls: ClientTls) -> str:
    """Raises AioRpcError, of one address: where a name has two, as localhost, the last one is what it tells of."""
    connection = Connection(f"127.0.0.1:{server.port}", EchoStub, tls)
    try:
        return str((await connection.stub.Unary(StringValue(value="in"), timeout=10)).value)
    finally:
        await connection.close()


async def refusal(server: Server, tls: ClientTls) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(server, tls)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    return refused.value.details() or ""


async def test_a_client_that_trusts_the_authority_gets_in_and_others_do_not(
    authority: Authority, tmp_path: Path
) -> None:
    async with serving(ServerTls(*authority.issue("server", names=LOCAL_NAMES))) as server:
        assert await call(server, ClientTls(authority.ca)) == "in"
        stranger = Authority(tmp_path / "other")
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal(server, ClientTls(stranger.ca))
        async with grpc.aio.insecure_channel(f"localhost:{server.port}") as plain:
            with pytest.raises(grpc.aio.AioRpcError):
                await EchoStub(plain).Unary(StringValue(), timeout=10)


@pytest.mark.parametrize(
    ("names", "until"),
    [(("elsewhere.example",), None), (LOCAL_NAMES, datetime.now(UTC) - timedelta(days=1))],
    ids=["wrong name", "expired"],
)
async def test_a_server_with_a_wrong_name_or_an_expired_certificate_is_not_talked_to(
    authority: Authority, names: tuple[str, ...], until: datetime | None
) -> None:
    async with serving(ServerTls(*authority.issue("server", names=names, until=until))) as server:
        await refusal(server, ClientTls(authority.ca))


async def test_with_mutual_tls_only_a_valid_certificate_of_the_authority_gets_in(
    authority: Authority, tmp_path: Path
) -> None:
    tls = ServerTls(*authority.issue("server", names=LOCAL_NAMES), authority.ca)
    forger = Authority(tmp_path / "forger", name="banditmesh throw-away CA")
    async with serving(tls) as server:
        good = authority.issue("client", uris=["spiffe://mesh/app"])
        forged = forger.issue("client", uris=["spiffe://mesh/app"])
        expired = authority.issue("late", until=datetime.now(UTC) - timedelta(days=1))
        assert await call(server, ClientTls(authority.ca, *good)) == "in"
        for wrong in (ClientTls(authority.ca), ClientTls(authority.ca, *forged), ClientTls(authority.ca, *expired)):
            await refusal(server, wrong)


async def test_a_new_certificate_is_shown_to_the_next_client_and_a_broken_one_never(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("server", names=LOCAL_NAMES)
    secret = tmp_path / "secret"
    secret.symlink_to(_version(tmp_path / "v1", cert, key))
    async with serving(ServerTls(secret / "tls.crt", secret / "tls.key")) as server:
        assert await call(server, ClientTls(authority.ca)) == "in"
        expires = "banditmesh_tls_certificate_expires_timestamp_seconds"
        before_s = server.registry.get_sample_value(expires, {"file": "certificate"})

        renewed = Authority(tmp_path / "renewed")
        sooner = datetime.now(UTC) + timedelta(days=20)
        _swap(secret, _version(tmp_path / "v2", *renewed.issue("server", names=LOCAL_NAMES, until=sooner)))
        assert await call(server, ClientTls(renewed.ca)) == "in"
        after_s = server.registry.get_sample_value(expires, {"file": "certificate"})
        assert before_s is not None
        assert after_s == int(sooner.timestamp()) < before_s
        issued_s = server.registry.get_sample_value(expires.replace("expires", "issued"), {"file": "certificate"})
        assert issued_s is not None
        assert issued_s < after_s
        await refusal(server, ClientTls(authority.ca))
        assert server.registry.get_sample_value("banditmesh_tls_reloads_total", {"result": "taken"}) == 1

        mixed = _version(tmp_path / "v3", cert, renewed.folder / "server.key")
        _swap(secret, mixed)
        assert await call(server, ClientTls(renewed.ca)) == "in"
        assert server.registry.get_sample_value("banditmesh_tls_reloads_total", {"result": "refused"}) == 1
        (mixed / "tls.crt").unlink()
        assert await call(server, ClientTls(renewed.ca)) == "in"


async def test_a_client_that_got_a_new_certificate_uses_it_without_a_failed_call(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "LOOK_EVERY_S", 0.0)
    seen: set[str] = set()

    async def who(request: StringValue, context: Any) -> StringValue:
        seen.update(name.decode() for name in context.auth_context()["x509_common_name"])
        return request

    server_tls = ServerTls(*authority.issue("server", names=LOCAL_NAMES), authority.ca)
    folder = _version(tmp_path / "mine", *authority.issue("first"))
    async with serving(server_tls, Echo(unary=who)) as server:
        mine = ClientTls(authority.ca, folder / "tls.crt", folder / "tls.key")
        connection = Connection(f"localhost:{server.port}", EchoStub, mine)
        await connection.stub.Unary(StringValue(), timeout=10)
        _version(folder, *authority.issue("second"))
        await connection.stub.Unary(StringValue(), timeout=10)
        assert seen == {"first", "second"}
        (folder / "tls.crt").write_text("half a fi")
        await connection.stub.Unary(StringValue(), timeout=10)
        await connection.close()


async def test_health_can_have_a_plaintext_port_that_serves_nothing_else(authority: Authority) -> None:
    tls = ServerTls(*authority.issue("server", names=LOCAL_NAMES), authority.ca)
    async with (
        serving(tls, health=HostPort("127.0.0.1", 0)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=NAME))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await EchoStub(channel).Unary(StringValue())
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("missing", ["cert", "key", "client_ca"])
async def test_a_server_without_its_files_says_which_one_is_missing(authority: Authority, missing: str) -> None:
    cert, key = authority.issue("server", names=LOCAL_NAMES)
    files = {"cert": cert, "key": key, "client_ca": authority.ca} | {missing: authority.folder / "nowhere.pem"}
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem"):
        async with serving(ServerTls(**files)):
            pass


async def test_grpcurl_gets_in_with_the_authoritys_certificate(authority: Authority) -> None:
    async with serving(ServerTls(*authority.issue("server", names=LOCAL_NAMES))) as server:
        address = f"localhost:{server.port}"
        with_ca = await _grpcurl("-cacert", str(authority.ca), address, f"{NAME}/Unary")
        without = await _grpcurl(address, f"{NAME}/Unary")
    assert with_ca.returncode == 0, with_ca.stderr
    assert without.returncode != 0
    assert "certificate" in without.stderr


async def _grpcurl(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return await asyncio.to_thread(
        lambda: subprocess.run(
            [str(GRPCURL), *arguments], capture_output=True, text=True, timeout=30, check=False, env=environment
        )
    )


def _version(folder: Path, cert: Path, key: Path) -> Path:
    """A folder as Kubernetes mounts a TLS Secret."""
    folder.mkdir(exist_ok=True)
    for source, name in ((cert, "tls.crt"), (key, "tls.key")):
        shutil.copy(source, folder / f".{name}")
        (folder / f".{name}").replace(folder / name)
    return folder


def _swap(link: Path, folder: Path) -> None:
    """Let a symbolic link point elsewhere, at once."""
    fresh = link.with_name(f"{link.name}.new")
    fresh.symlink_to(folder)
    fresh.replace(link)
