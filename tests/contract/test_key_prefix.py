"""The prefix before every key: two meshes in one Redis, on one node and on a Cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot

from banditmesh.runtime import keys
from banditmesh.runtime.addresses import RedisAccess, RedisAddress
from banditmesh.runtime.errors import Internal
from banditmesh.runtime.key_prefix import prefixed, prefixed_key
from banditmesh.runtime.redis import RedisClient

SOURCE = "weather/today"


def client(url: str, prefix: str) -> RedisClient:
    return RedisClient(replace(RedisAddress.parse(url), access=RedisAccess(prefix=prefix)), timeout_s=5.0)


async def write_all_kinds(redis: RedisClient) -> None:
    """By each way in which the services reach Redis."""
    await redis.ping()
    await redis.client.set(keys.live(SOURCE), b"x", px=10_000)
    await redis.client.xadd(keys.CHANGES, {"kind": "live"})
    await redis.client.zadd(keys.JOBS, {"job-1": 1.0})
    await redis.client.eval("redis.call('SET', KEYS[1], ARGV[1])", 1, keys.source_lease(SOURCE), "me")
    # A lease lies in the slot of what it is for, whatever the prefix: this script would be refused otherwise.
    script = "return redis.call('EXISTS', KEYS[1], KEYS[2])"
    assert await redis.client.eval(script, 2, keys.live(SOURCE), keys.source_lease(SOURCE)) == 2
    pipeline = redis.pipeline(transaction=True)
    pipeline.hset(keys.reactions(3, b"\x01"), "click", b"1")
    pipeline.set(keys.join_progress(3), b"7")
    await pipeline.execute()
    pipeline = redis.pipeline()
    for user in range(20):
        pipeline.set(keys.state(keys.user_tag(f"u{user}")), str(user).encode())
        pipeline.set(keys.content(user), str(user).encode())
    await pipeline.execute()


async def read_all_kinds(redis: RedisClient) -> list[Any]:
    return [
        await redis.read([keys.content(number) for number in range(20)]),
        await redis.read_users([[keys.state(keys.user_tag(f"u{user}"))] for user in range(20)]),
        await redis.client.get(keys.live(SOURCE)),
        await redis.client.xlen(keys.CHANGES),
        bool(await redis.client.xread({keys.CHANGES: "0-0"}, count=1)),
        await redis.client.zrange(keys.JOBS, 0, -1),
        await redis.client.hget(keys.reactions(3, b"\x01"), "click"),
        await redis.client.exists(keys.job("none")),
    ]


async def all_keys(url: str) -> set[bytes]:
    """As they are in Redis."""
    address = RedisAddress.parse(url)
    if address.cluster:
        cluster = RedisCluster(host=address.nodes[0].host, port=address.nodes[0].port)
        found = {key async for key in cluster.scan_iter()}
        await cluster.aclose()
        return found
    node = Redis(host=address.nodes[0].host, port=address.nodes[0].port)
    found = {key async for key in node.scan_iter()}
    await node.aclose()
    return found


@pytest.mark.parametrize("fixture", ["fresh_redis", "fresh_redis_cluster"], ids=["node", "cluster"])
async def test_two_meshes_in_one_redis_share_no_key(fixture: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(fixture)
    one, other = client(url, "one:"), client(url, "other:")
    await write_all_kinds(one)
    of_one = await all_keys(url)
    assert of_one
    assert all(key.startswith(b"one:") for key in of_one)
    assert await read_all_kinds(other) == [[None] * 20, [[None]] * 20, None, 0, False, [], None, 0]

    await write_all_kinds(other)
    assert await all_keys(url) - of_one == {b"other:" + key.removeprefix(b"one:") for key in of_one}
    assert await read_all_kinds(one) == await read_all_kinds(other)
    assert (await read_all_kinds(one))[0] == [str(number).encode() for number in range(20)]
    await one.close()
    await other.close()


@pytest.mark.parametrize("key", [keys.CHANGES, keys.live(SOURCE), keys.content(5), keys.state("{u}"), "x{y}z{w}"])
def test_a_key_stays_in_its_slot(key: str) -> None:
    assert key_slot(prefixed_key(key.encode(), b"mesh:")) == key_slot(key.encode())


@pytest.mark.parametrize("key", ["a}b", "a{}b", "a{b"])
def test_a_brace_that_is_no_hash_tag_would_move_a_key_and_is_refused(key: str) -> None:
    with pytest.raises(Internal, match="hash tag"):
        prefixed_key(key.encode(), b"mesh:")


async def test_of_every_command_of_the_server_the_keys_are_known_or_it_is_refused(fresh_redis: str) -> None:
    """A command whose key would go out without the prefix could reach another mesh's."""
    address = RedisAddress.parse(fresh_redis).nodes[0]
    node = Redis(host=address.host, port=address.port, decode_responses=True)
    wrong = []
    known = 0
    for name, command in (await node.command()).items():
        words = [name.upper(), "k1", "2", "k3", "k4", "STREAMS", "k6", "0"]
        try:
            words = [name.upper(), *("k" if word.startswith("k") else word for word in words[1:])]
            ours = [at for at, word in enumerate(prefixed(words, b"p:")) if word == b"p:{k}"]
        except (Internal, ValueError, StopIteration):
            continue
        known += 1
        first, last, step = command["first_key_pos"], command["last_key_pos"], command["step_count"]
        if "movablekeys" in command["flags"] or first == 0:  # worked out from the words: tested by name
            continue
        end = last if last >= 0 else len(words) + last
        theirs = [at for at in range(first, end + 1, step) if words[at] == "k"]
        if [at for at in ours if words[at] == "k"] != theirs:
            wrong.append((name, ours, theirs))
    await node.aclose()
    assert wrong == []
    assert known > 100


@pytest.mark.parametrize(
    ("words", "keys_at"),
    [
        (["EVAL", "return 1", "2", "a", "b", "c"], [3, 4]),
        (["XREAD", "COUNT", "1", "STREAMS", "a", "b", "0", "0"], [4, 5]),
        (["MGET", "a", "b"], [1, 2]),
        (["MEMORY USAGE", "a"], [2]),
        (["XINFO", "STREAM", "a"], [2]),
        (["CLIENT", "SETNAME", "a"], []),
        (["CONFIG GET", "maxmemory"], []),
    ],
)
def test_the_keys_of_a_command_are_where_the_server_sees_them(words: list[str], keys_at: list[int]) -> None:
    got = prefixed(words, b"p:")
    assert [at for at, word in enumerate(got) if isinstance(word, bytes) and word.startswith(b"p:")] == keys_at


def test_a_command_that_is_not_known_does_not_go_out() -> None:
    with pytest.raises(Internal, match="SINTERSTORE"):
        prefixed(["SINTERSTORE", "to", "a", "b"], b"p:")
