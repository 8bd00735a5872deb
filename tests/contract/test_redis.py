"""What a :class:`RedisClient` promises, over one node and over a cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from banditmesh.local.valkey import Valkey
from banditmesh.runtime import keys
from banditmesh.runtime.addresses import RedisAccess, RedisAddress
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.redis import RedisClient


@pytest_asyncio.fixture(
    params=[("fresh_redis", ""), ("fresh_redis_cluster", ""), ("fresh_redis", "a."), ("fresh_redis_cluster", "a.")],
    ids=["node", "cluster", "node with a prefix", "cluster with a prefix"],
)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RedisClient]:
    fixture, prefix = request.param
    address = RedisAddress.parse(request.getfixturevalue(fixture))
    opened = RedisClient(replace(address, access=RedisAccess(prefix=prefix)), timeout_s=5.0)
    yield opened
    await opened.close()


async def test_users_are_read_in_their_order_with_none_for_what_is_missing(store: RedisClient) -> None:
    for user in range(50):
        await store.client.set(keys.state(keys.user_tag(f"u{user}")), f"state {user}".encode())
    wanted = [[keys.profile(keys.user_tag(f"u{n}"), 0), keys.state(keys.user_tag(f"u{n}"))] for n in range(49, -1, -1)]

    found = await store.read_users(wanted)

    assert found == [[None, f"state {user}".encode()] for user in range(49, -1, -1)]


async def test_users_may_want_different_numbers_of_keys(store: RedisClient) -> None:
    await store.client.set("s:{a}", b"a")
    assert await store.read_users([["s:{a}"], ["p:{b}:A", "s:{b}"], ["s:{a}", "p:{a}:A"]]) == [
        [b"a"],
        [None, None],
        [b"a", None],
    ]


async def test_keys_of_any_slots_are_read_together(store: RedisClient) -> None:
    for number in range(40):
        await store.client.set(keys.content(number), str(number).encode())
    assert await store.read([keys.content(number) for number in range(41)]) == [
        *(str(number).encode() for number in range(40)),
        None,
    ]


async def test_nothing_is_asked_for_nothing(store: RedisClient) -> None:
    assert await store.read([]) == []
    assert await store.read_users([]) == []


async def test_a_name_beyond_ascii_is_read_under_the_key_it_was_written_to(store: RedisClient) -> None:
    key = keys.state(keys.user_tag("あ}ん"))
    await store.client.set(key, b"here")
    assert await store.read_users([[key]]) == [[b"here"]]


async def test_a_transaction_over_keys_of_one_tag_applies_as_a_whole(store: RedisClient) -> None:
    await store.ping()
    pipeline = store.pipeline(transaction=True)
    pipeline.set("j:{p1}:a", b"1")
    pipeline.set("j:{p1}:b", b"2")
    await pipeline.execute()
    assert await store.read_users([["j:{p1}:a", "j:{p1}:b"]]) == [[b"1", b"2"]]


async def test_a_server_that_is_away_is_unavailable_and_named_without_the_password(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey:
        port = valkey.port
    store = RedisClient(f"redis://:secret@127.0.0.1:{port}/0", timeout_s=0.5)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}") as raised:
        await store.read_users([["s:{a}"]])
    assert "secret" not in str(raised.value)
    assert raised.value.retry_after_s
    await store.close()


async def test_a_server_that_comes_back_is_read_again_by_the_same_store(tmp_path: Path) -> None:
    with Valkey(tmp_path, appendfsync="always") as valkey:
        store = RedisClient(valkey.url, timeout_s=2.0)
        await store.client.set("s:{a}", b"kept")
        valkey.kill()
        with pytest.raises(Unavailable):
            await store.ping()
        valkey.start()
        assert await store.read_users([["s:{a}"]]) == [[b"kept"]]
        await store.close()


@pytest.mark.parametrize("key_bytes", [10, 20_000], ids=["while reading", "while sending"])
async def test_a_server_that_stalls_is_unavailable_in_time_and_read_again_when_it_goes_on(
    tmp_path: Path, key_bytes: int
) -> None:
    with Valkey(tmp_path) as valkey:
        store = RedisClient(valkey.url, timeout_s=1.0)
        await store.client.set("s:{a}", b"kept")
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="TimeoutError"):
                await store.read(["k" * key_bytes] * 1000)  # 20 MB are more than the sockets' buffers take
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        assert await store.read(["s:{a}"]) == [b"kept"]
        await store.close()
