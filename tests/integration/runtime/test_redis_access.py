"""A Redis that wants TLS, a certificate of ours, or a user with no more rights than the mesh needs."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from banditmesh.local import ports
from banditmesh.local.authority import LOCAL_NAMES, Authority
from banditmesh.local.kafka import Kafka
from banditmesh.local.valkey import Valkey
from banditmesh.runtime import keys
from banditmesh.runtime.addresses import RedisAccess, RedisAddress
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.redis_health import RedisHealth
from tests.contract.test_key_prefix import read_all_kinds, write_all_kinds
from tests.integration.joiner.harness import click, decision, joiner, world
from tests.support.moving_name import MovingName
from tests.support.spoiled import of_another_type

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@asynccontextmanager
async def behind_tls(valkey: Valkey, authority: Authority, *, asks_for_ours: bool = False) -> AsyncIterator[str]:
    """The URL of the node behind a TLS terminator, as a managed Redis has one (this Valkey is built without TLS)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    context.load_cert_chain(*authority.issue("redis", names=LOCAL_NAMES))
    context.verify_mode = ssl.CERT_REQUIRED if asks_for_ours else ssl.CERT_NONE
    async with MovingName(valkey.port, tls=context) as terminator:
        yield f"rediss://127.0.0.1:{terminator.port}"


def client(url: str, access: RedisAccess) -> RedisClient:
    return RedisClient(replace(RedisAddress.parse(url), access=access), timeout_s=2.0)


async def test_tls_by_an_authority_of_ones_own(valkey: Valkey, fresh_redis: str, authority: Authority) -> None:
    async with behind_tls(valkey, authority) as url:
        redis = client(url, RedisAccess(ca_file=authority.ca, prefix="t:"))
        await write_all_kinds(redis)
        assert (await read_all_kinds(redis))[0][7] == b"7"
        await redis.close()


async def test_an_authority_that_is_not_trusted_is_said(
    valkey: Valkey, fresh_redis: str, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    async with behind_tls(valkey, authority) as url:
        redis = client(url, RedisAccess(ca_file=other.ca))
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await redis.ping()
        await redis.close()


async def test_a_server_that_asks_for_our_certificate_gets_it(
    valkey: Valkey, fresh_redis: str, authority: Authority
) -> None:
    certificate, key = authority.issue("mesh")
    async with behind_tls(valkey, authority, asks_for_ours=True) as url:
        redis = client(url, RedisAccess(ca_file=authority.ca, certificate_file=certificate, key_file=key))
        await redis.ping()
        await redis.close()
        without = client(url, RedisAccess(ca_file=authority.ca))
        with pytest.raises(Unavailable):
            await without.ping()
        await without.close()


def documented_acl() -> list[str]:
    """The words after the password of the user in docs/operations.md."""
    (rules,) = re.findall(r"`ACL SETUSER mesh on >password (.*?)`", OPERATIONS.read_text())
    return str(rules).split()


async def test_the_documented_acl_is_enough_for_join_and_imports_and_for_no_other_mesh(
    kafka: Kafka, valkey: Valkey, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    valkey.command("ACL", "SETUSER", "mesh", "on", ">password", *documented_acl())
    try:
        user = RedisAccess(prefix="mesh1:", username="mesh", password="password")
        redis = client(fresh_redis, user)
        await write_all_kinds(redis)
        await read_all_kinds(redis)
        health = RedisHealth(redis, relies=True)
        await health.writable()
        await health.keeps()
        await of_another_type(redis.client, keys.live("a/b"))
        with pytest.raises(Unavailable):
            async with redis.guarded(keys.live("a/b")):
                await redis.client.get(keys.live("a/b"))
        assert await redis.client.lrange(keys.aside(keys.live("a/b")), 0, -1) == [b"a list"]
        await redis.close()

        async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as mesh:
            address = replace(RedisAddress.parse(fresh_redis), access=user)
            async with joiner(mesh.settings().model_copy(update={"redis": address})):
                await mesh.show(decision(1))
                await mesh.react(click(decision(1)))
                assert len(await mesh.examples(1)) == 1
        stranger = client(fresh_redis, replace(user, prefix="mesh2:"))
        with pytest.raises(Unavailable, match="does not permit it"):
            await stranger.read(["s:{a}"])
        await stranger.close()
    finally:
        valkey.command("ACL", "DELUSER", "mesh")


async def test_a_user_and_a_password_beside_the_url_are_used(valkey: Valkey, fresh_redis: str) -> None:
    valkey.command("ACL", "SETUSER", "beside", "on", ">p@ss/word", "~*", "+@all")
    try:
        redis = client(fresh_redis, RedisAccess(username="beside", password="p@ss/word"))
        async with redis.guarded():
            assert await redis.client.execute_command("ACL WHOAMI") == "beside"
        await redis.close()
    finally:
        valkey.command("ACL", "DELUSER", "beside")


@pytest.mark.parametrize("there", [True, False], ids=["no Cluster", "nothing"])
async def test_what_is_no_cluster_is_unavailable_and_not_the_end_of_whoever_asks(fresh_redis: str, there: bool) -> None:
    address = urlsplit(fresh_redis).netloc if there else f"127.0.0.1:{ports.free(1)[0]}"
    redis = RedisClient(f"redis+cluster://{address}", timeout_s=2.0)
    try:
        with pytest.raises(Unavailable) as error:
            await redis.ping()
    finally:
        await redis.close()
    assert error.value.dependency == "redis"
    assert ("this is no Cluster" in (error.value.hint or "")) is there
