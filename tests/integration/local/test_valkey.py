"""The local Valkey."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import redis

from banditmesh.local.process import DidNotStart
from banditmesh.local.valkey import Valkey, ValkeyCluster


def test_it_serves_and_stops_without_a_trace(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.set("greeting", "hello")
        assert client.get("greeting") == b"hello"
    with pytest.raises(ProcessLookupError):
        os.killpg(valkey.pid, 0)


def test_what_it_acknowledged_survives_a_kill_on_the_same_port(tmp_path: Path) -> None:
    with Valkey(tmp_path, appendfsync="always") as valkey:
        port = valkey.port
        with redis.Redis.from_url(valkey.url) as client:
            for i in range(200):
                client.set(f"key-{i}", i)
        valkey.kill()
        assert not valkey.running
        valkey.start()
        assert valkey.port == port
        with redis.Redis.from_url(valkey.url) as client:
            assert [client.get(f"key-{i}") for i in range(200)] == [str(i).encode() for i in range(200)]


def test_a_later_server_on_the_same_folder_has_the_same_address_and_data(tmp_path: Path) -> None:
    with Valkey(tmp_path) as first:
        first.command("SET", "greeting", "hello")
    with Valkey(tmp_path) as second:
        assert second.url == first.url
        assert second.command("GET", "greeting") == "hello"


def test_it_takes_another_port_when_the_remembered_one_is_taken(tmp_path: Path) -> None:
    with Valkey(tmp_path) as first:
        pass
    with socket.create_server(("127.0.0.1", first.port)), Valkey(tmp_path) as second:
        assert second.port != first.port


def test_a_port_that_was_asked_for_and_is_taken_is_named(tmp_path: Path) -> None:
    with (
        Valkey(tmp_path / "first") as first,
        pytest.raises(DidNotStart, match=f"already in use: 127.0.0.1:{first.port}"),
    ):
        Valkey(tmp_path / "second", ports_wanted=first.ports).start()


def test_a_broken_configuration_is_told_in_valkeys_own_words(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match="no-such-option") as caught:
        Valkey(tmp_path, options={"no-such-option": "1"}).start()
    assert caught.value.server == "valkey"
    assert "Bad directive" in caught.value.log_end


def test_a_cluster_covers_all_slots_and_serves_keys_of_every_node(tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path) as cluster:
        client = redis.RedisCluster.from_url(cluster.url.replace("redis+cluster", "redis"))
        for i in range(60):
            client.set(f"key-{i}", i)
        client.close()
        assert all(int(node.command("DBSIZE")) > 0 for node in cluster.nodes)
        assert sum(int(node.command("DBSIZE")) for node in cluster.nodes) == 60


def test_a_killed_cluster_node_comes_back_with_its_slots_and_keys(tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path, appendfsync="always") as cluster:
        client = redis.RedisCluster.from_url(cluster.url.replace("redis+cluster", "redis"))
        client.set("greeting", "hello")
        owner = next(node for node in cluster.nodes if node.command("DBSIZE") == "1")
        owner.kill()
        owner.start()
        cluster.wait_until_whole()
        assert client.get("greeting") == b"hello"
        client.close()
