"""What a fail-over does to a client of Redis: real primaries and replicas, names that move, connections left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from banditmesh.local.valkey import ClusterNode, Valkey, ValkeyCluster
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.redis_health import RedisHealth
from tests.support.eventually import eventually, eventually_true
from tests.support.moving_name import MovingName
from tests.support.sentinel import Sentinel

BACK_WITHIN_S = 2.0


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Valkey, Valkey]]:
    """A primary and its replica, in step."""
    at_once = {"repl-diskless-sync-delay": "0"}
    with Valkey(tmp_path / "a", options=at_once) as primary, Valkey(tmp_path / "b", options=at_once) as replica:
        replica.command("REPLICAOF", "127.0.0.1", primary.port)
        eventually_true(lambda: "master_link_status:up" in replica.command("INFO replication"))
        yield primary, replica


def swap(primary: Valkey, replica: Valkey) -> None:
    """The replica becomes primary; the primary is demoted, and keeps its connections."""
    replica.command("REPLICAOF", "NO", "ONE")
    primary.command("REPLICAOF", "127.0.0.1", replica.port)


def attempt(call: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[bool]]:
    async def once() -> bool:
        try:
            await call()
        except Unavailable:
            return False
        return True

    return once


async def test_a_demoted_primary_is_left_and_its_name_looked_up_again(pair: tuple[Valkey, Valkey]) -> None:
    primary, replica = pair
    async with MovingName(primary.port) as name:
        redis = RedisClient(f"redis://127.0.0.1:{name.port}", timeout_s=1.0)

        async def write(value: bytes = b"1") -> None:
            async with redis.guarded():
                await redis.client.set("s:{a}", value)

        await asyncio.gather(*(write() for _ in range(8)))  # several connections, all of them open
        assert name.n_open > 1
        swap(primary, replica)
        name.target_port = replica.port

        with pytest.raises(Unavailable, match="takes no writes, it is a replica"):
            await write()
        await eventually(attempt(lambda: write(b"2")), within_s=BACK_WITHIN_S)
        await asyncio.gather(*(write(b"2") for _ in range(8)))  # none of the others is left where it was
        assert replica.command("GET", "s:{a}") == "2"
        await redis.close()


@pytest.mark.parametrize("how", ["script", "transaction", "pipeline"])
async def test_whatever_a_write_is_made_of_it_comes_back(pair: tuple[Valkey, Valkey], how: str) -> None:
    primary, replica = pair
    async with MovingName(primary.port) as name:
        redis = RedisClient(f"redis://127.0.0.1:{name.port}", timeout_s=1.0)

        async def write() -> None:
            async with redis.guarded():
                if how == "script":
                    await redis.client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "s:{a}", "2")
                    return
                pipeline = redis.pipeline(transaction=how == "transaction")
                pipeline.set("s:{a}", "2")
                await pipeline.execute()

        await write()
        swap(primary, replica)
        name.target_port = replica.port
        with pytest.raises(Unavailable):
            await write()
        await eventually(attempt(write), within_s=BACK_WITHIN_S)
        await redis.close()


async def test_a_reader_leaves_a_primary_that_became_a_replica(pair: tuple[Valkey, Valkey]) -> None:
    """Nothing that it asks for fails: it would read what is old for as long as the connection lives."""
    primary, replica = pair
    async with MovingName(primary.port) as name:
        redis = RedisClient(f"redis://127.0.0.1:{name.port}", timeout_s=1.0)
        await redis.ping()
        swap(primary, replica)
        name.target_port = replica.port
        primary.command("REPLICAOF", "127.0.0.1", 1)  # and it hears of nothing any more
        replica.command("SET", "s:{a}", "new")
        assert await redis.read(["s:{a}"]) == [None]
        await redis.ping()
        assert await redis.read(["s:{a}"]) == [b"new"]
        await redis.close()


async def test_a_replica_without_its_primary_is_left(tmp_path: Path) -> None:
    """MASTERDOWN, to reads and writes."""
    with Valkey(tmp_path / "a", options={"replica-serve-stale-data": "no"}) as cut_off, Valkey(tmp_path / "b") as other:
        async with MovingName(cut_off.port) as name:
            redis = RedisClient(f"redis://127.0.0.1:{name.port}", timeout_s=1.0)
            await redis.ping()
            cut_off.command("REPLICAOF", "127.0.0.1", 1)
            name.target_port = other.port
            with pytest.raises(Unavailable, match="MasterDown"):
                await redis.read(["s:{a}"])
            assert await redis.read(["s:{a}"]) == [None]
            await redis.close()


class SlowToLoad(Valkey):
    """Answers LOADING for some seconds after its start."""

    def _ready(self) -> bool:
        return "loading:1" in self.command("INFO persistence")


async def test_a_node_that_is_still_loading_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with Valkey(folder, options={"enable-debug-command": "yes"}) as filled:
        filled.command("DEBUG", "POPULATE", 20_000)
        filled.command("BGREWRITEAOF")
        eventually_true(lambda: "aof_rewrite_in_progress:0" in filled.command("INFO persistence"))
        eventually_true(lambda: "aof_rewrite_scheduled:0" in filled.command("INFO persistence"))
    # key-load-delay is Valkey's own setting for its tests, microseconds a key.
    options = {"key-load-delay": "500", "loading-process-events-interval-bytes": "1024"}
    with SlowToLoad(folder, options=options) as loading, Valkey(tmp_path / "b") as other:
        async with MovingName(loading.port) as name:
            redis = RedisClient(f"redis://127.0.0.1:{name.port}", timeout_s=1.0)
            with pytest.raises(Unavailable, match="BusyLoading"):
                await redis.read(["s:{a}"])
            name.target_port = other.port
            assert await redis.read(["s:{a}"]) == [None]
            await redis.close()
        loading.kill()


async def test_a_writers_check_sees_what_a_ping_does_not(pair: tuple[Valkey, Valkey]) -> None:
    _, replica = pair
    redis = RedisClient(replica.url, timeout_s=1.0)
    await redis.ping()
    with pytest.raises(Unavailable, match="it is a replica"):
        await RedisHealth(redis, relies=True).writable()
    await redis.close()


async def test_connections_that_died_in_an_outage_fail_no_call_later(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey:
        redis = RedisClient(valkey.url, timeout_s=1.0)
        await asyncio.gather(*(redis.ping() for _ in range(8)))
        valkey.kill()
        await asyncio.to_thread(valkey.start)  # all eight are in the pool still
        await asyncio.gather(*(redis.ping() for _ in range(8)))
        assert await redis.read(["s:{a}"]) == [None]
        await redis.close()


async def test_a_connection_that_rests_and_whose_peer_is_silent_is_tried_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banditmesh.runtime.redis_connect.IDLE_S", 0.0)
    with Valkey(tmp_path) as valkey:
        async with MovingName(valkey.port) as name:
            redis = RedisClient(f"redis://127.0.0.1:{name.port}", timeout_s=0.3)
            await redis.ping()
            name.go_silent()  # the host is gone, and has closed nothing
            assert await redis.read(["s:{a}"]) == [None]
            await redis.close()


async def test_sentinels_are_asked_for_the_new_primary(pair: tuple[Valkey, Valkey], tmp_path: Path) -> None:
    primary, replica = pair
    with Sentinel(tmp_path / "sentinel", primary.port) as sentinel:
        redis = RedisClient(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/mymaster", timeout_s=1.0)

        async def write() -> None:
            async with redis.guarded():
                await redis.client.set("s:{a}", b"2")

        await write()
        assert replica.command("PING") == "PONG"
        eventually_true(lambda: "slaves=1" in sentinel.command("INFO sentinel"))
        primary.kill()
        await eventually(attempt(write), within_s=20.0)
        assert "role:master" in replica.command("INFO replication")
        await redis.close()


async def test_sentinels_that_know_no_such_service_say_so(tmp_path: Path) -> None:
    with Valkey(tmp_path / "a") as primary, Sentinel(tmp_path / "sentinel", primary.port) as sentinel:
        redis = RedisClient(f"redis+sentinel://127.0.0.1:{sentinel.port}/other", timeout_s=1.0)
        with pytest.raises(Unavailable, match="No master found for 'other'"):
            await redis.ping()
        await redis.close()


async def test_a_cluster_whose_primary_moves_is_written_again(tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path) as cluster, ClusterNode(tmp_path / "replica") as replica:
        first = cluster.nodes[0]
        replica.command("CLUSTER MEET", "127.0.0.1", *first.ports)
        primary_id = first.command("CLUSTER MYID")
        eventually_true(lambda: primary_id in replica.command("CLUSTER NODES"))
        replica.command("CLUSTER REPLICATE", primary_id)
        eventually_true(lambda: "master_link_status:up" in replica.command("INFO replication"))
        redis = RedisClient(cluster.url, timeout_s=1.0)
        health = RedisHealth(redis, relies=True)

        async def write() -> None:
            async with redis.guarded():
                for number in range(30):  # all nodes
                    await redis.client.set(f"s:{{u{number}}}", b"1")

        await write()
        await health.writable()
        first.kill()  # the node that the URL names, too
        replica.command("CLUSTER FAILOVER", "TAKEOVER")
        await eventually(attempt(write), within_s=20.0)
        await eventually(attempt(health.writable), within_s=20.0)
        await redis.close()


@pytest.mark.parametrize(
    "said", [b"+OK\r\n", b":1\r\n", b"*0\r\n", b"*1\r\n$1\r\na\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
async def test_a_server_that_answers_what_was_not_asked_is_left(valkey: Valkey, fresh_redis: str, said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(2**16):
            writer.write(said)
        writer.close()

    fake = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with fake, MovingName(fake.sockets[0].getsockname()[1]) as name:
        redis = RedisClient(f"redis://127.0.0.1:{name.port}", timeout_s=1.0)
        for _ in range(3):
            with pytest.raises(Unavailable) as refused:
                await redis.read_users([["s:{a}", "p:{a}"]])
            assert refused.value.dependency == "redis"
        name.target_port = valkey.port
        assert await redis.read_users([["s:{a}", "p:{a}"]]) == [[None, None]]
        await redis.close()
