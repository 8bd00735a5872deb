"""What a Redis must be set to, and how services find out where they may not ask for its configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from banditmesh.local.valkey import Valkey
from banditmesh.runtime.errors import FailedPrecondition, Unavailable
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.redis_health import RedisHealth, forgetful


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A node of this module's own, as its settings are changed."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest_asyncio.fixture
async def redis(server: Valkey) -> AsyncIterator[RedisClient]:
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "appendonly", "yes")
    opened = RedisClient(server.url, timeout_s=2.0)
    yield opened
    await opened.close()


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_redis_that_evicts_is_refused_by_name_by_who_relies_on_it(
    server: Valkey, redis: RedisClient, policy: str
) -> None:
    server.command("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(FailedPrecondition, match=f"maxmemory-policy is {policy}, must be noeviction"):
        await RedisHealth(redis, relies=True).keeps()


async def test_nothing_is_joined_on_a_redis_that_evicts_until_it_is_mended(server: Valkey, redis: RedisClient) -> None:
    server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru", "appendonly", "no")
    health = RedisHealth(redis, relies=True)
    with pytest.raises(FailedPrecondition, match="maxmemory-policy is volatile-lru, must be noeviction"):
        await health.may_be_relied_on()
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    with pytest.raises(FailedPrecondition, match="appendonly is no"):
        await health.keeps()
    await health.may_be_relied_on()


async def test_a_redis_that_keeps_what_it_has_is_well(redis: RedisClient) -> None:
    await RedisHealth(redis, relies=True).keeps()
    await RedisHealth(redis, relies=True).writable()


async def test_a_redis_without_a_log_and_without_a_replica_is_refused(server: Valkey, redis: RedisClient) -> None:
    server.command("CONFIG", "SET", "appendonly", "no")
    with pytest.raises(FailedPrecondition, match="appendonly is no and there is no replica"):
        await RedisHealth(redis, relies=True).keeps()


async def test_who_does_not_rely_on_it_warns_once(server: Valkey, redis: RedisClient) -> None:
    server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    health = RedisHealth(redis, relies=False)
    with capture_logs() as logs:
        await health.keeps()
        await health.keeps()
    assert [each["problem"] for each in logs] == ["maxmemory-policy is volatile-lru, must be noeviction"]


async def test_a_user_that_may_not_configure_finds_out_all_the_same(server: Valkey, redis: RedisClient) -> None:
    server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-config")
    server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    user = RedisClient(f"redis://app:secret@127.0.0.1:{server.port}", timeout_s=2.0)
    with pytest.raises(FailedPrecondition, match="volatile-lru"):
        await RedisHealth(user, relies=True).keeps()
    await user.close()


async def test_a_user_that_may_not_even_ask_is_warned_and_goes_on(server: Valkey, redis: RedisClient) -> None:
    server.command("ACL", "SETUSER", "blind", "on", ">secret", "~*", "+@all", "-info", "-role")
    user = RedisClient(f"redis://blind:secret@127.0.0.1:{server.port}", timeout_s=2.0)
    with capture_logs() as logs:
        await RedisHealth(user, relies=True).keeps()
    await user.ping()
    assert "may not read INFO" in logs[0]["event"]
    await user.close()


async def test_a_full_redis_says_that_it_is_full(server: Valkey, redis: RedisClient) -> None:
    server.command("CONFIG", "SET", "maxmemory", "1mb")
    try:
        with pytest.raises(Unavailable, match="is full and takes no writes"):
            await RedisHealth(redis, relies=True).writable()
    finally:
        server.command("CONFIG", "SET", "maxmemory", "0")


async def test_each_primary_of_a_cluster_is_looked_at(fresh_redis_cluster: str, valkey_cluster: Any) -> None:
    odd = valkey_cluster.nodes[2]
    odd.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    redis = RedisClient(fresh_redis_cluster, timeout_s=2.0)
    try:
        with pytest.raises(FailedPrecondition, match=f"allkeys-lfu, must be noeviction at 127.0.0.1:{odd.port}"):
            await RedisHealth(redis, relies=True).keeps()
    finally:
        odd.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await redis.close()


@pytest.mark.parametrize(
    ("info", "problems"),
    [
        ({"maxmemory_policy": "noeviction", "aof_enabled": 0, "connected_slaves": 1}, 0),
        ({"maxmemory_policy": "noeviction", "aof_enabled": 0, "connected_slaves": 0}, 1),
        ({"maxmemory_policy": "volatile-lru", "aof_enabled": 1}, 1),
        ({}, 0),  # a server that says neither: nothing is known against it
    ],
)
def test_a_replica_is_as_good_as_a_log(info: dict[str, object], problems: int) -> None:
    assert len(forgetful(info)) == problems


async def test_a_wrong_password_is_said_with_what_to_look_at(server: Valkey) -> None:
    server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
    redis = RedisClient(f"redis://app:wrong@127.0.0.1:{server.port}", timeout_s=2.0)
    with pytest.raises(Unavailable, match=r"refuses the login: .*BANDITMESH_REDIS") as refused:
        await redis.ping()
    assert "wrong@" not in str(refused.value)
    await redis.close()


async def test_a_key_that_the_user_may_not_touch_is_no_outage(server: Valkey, tmp_path: Path) -> None:
    server.command("ACL", "SETUSER", "narrow", "on", ">secret", "~mesh:*", "+@all")
    redis = RedisClient(f"redis://narrow:secret@127.0.0.1:{server.port}", timeout_s=2.0)
    with pytest.raises(Unavailable, match="does not permit it"):
        await redis.read(["s:{a}"])
    await redis.close()
