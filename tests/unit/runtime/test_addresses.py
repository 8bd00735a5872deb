"""Addresses as operators write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from banditmesh.runtime.addresses import (
    FileAddress,
    HostPort,
    KafkaAddress,
    RedisAddress,
    S3Address,
    parse_store,
    shown,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("0.0.0.0:50051", "0.0.0.0", 50051), ("[::1]:0", "::1", 0), ("redis.svc:6379", "redis.svc", 6379)],
)
def test_host_and_port_are_read_and_written_back(text: str, host: str, port: int) -> None:
    address = HostPort.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", ":80", "host:", "host:http", "host:70000", "host:-1", "u:pw@host:80", "kafka://host:80", "a b:80"],
)
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|port"):
        HostPort.parse(text)


def test_several_kafka_servers_go_back_to_what_the_client_takes() -> None:
    assert str(KafkaAddress.parse("a:9092, b:9093")) == "a:9092,b:9093"


def test_user_and_password_of_kafka_are_no_part_of_its_address() -> None:
    with pytest.raises(ValueError, match=r"BANDITMESH_KAFKA_PASSWORD"):
        KafkaAddress.parse("user:secret@broker:9092")


@pytest.mark.parametrize(
    ("address", "printed"),
    [
        ("redis://u:secret@h:6379/1", "redis://***@h:6379/1"),
        ("redis://u:se/cr@et@h", "redis://***@h"),
        ("redis+sentinel://u:secret@a:1,u:secret@b:1/main", "redis+sentinel://***@b:1/main"),
        ("u:secret@h:9092", "***@h:9092"),
        ("h:1,u:secret@h:2", "***@h:2"),
        ("s3://key:secret@bucket", "s3://***@bucket"),
        ("h:9092", "h:9092"),
    ],
)
def test_no_password_is_printed(address: str, printed: str) -> None:
    assert shown(address) == printed


def test_a_redis_cluster_is_told_from_a_node() -> None:
    node = RedisAddress.parse("redis://h:1/2")
    assert (node.kind, node.nodes, node.tls, node.database) == ("node", (HostPort("h", 1),), False, 2)
    cluster = RedisAddress.parse("rediss+cluster://h:1,[::1]:2,i")
    assert (cluster.kind, cluster.tls) == ("cluster", True)
    assert cluster.nodes == (HostPort("h", 1), HostPort("::1", 2), HostPort("i", 6379))


def test_sentinels_are_told_with_the_service_that_they_watch() -> None:
    address = RedisAddress.parse("redis+sentinel://:p%40ss@a,b:1/mymaster/3")
    assert (address.kind, address.service, address.database) == ("sentinel", "mymaster", 3)
    assert address.nodes == (HostPort("a", 26379), HostPort("b", 1))
    assert (address.username, address.password) == (None, "p@ss")


def test_a_redis_password_is_not_shown() -> None:
    address = RedisAddress.parse("redis+cluster://user:hunter2@h:6379")
    assert "hunter2" in address.url
    assert "hunter2" not in f"{address} {address!r}"
    assert str(address) == "redis+cluster://h:6379"


@pytest.mark.parametrize(
    "text",
    [
        "h:6379",
        "http://h",
        "redis://",
        "redis+sentinel://h",
        "redis+cluster://h:1/2",
        "redis://h:port",
        "redis://a,b",
        "redis://h/x",
        "redis+x://h",
    ],
)
def test_what_is_no_redis_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"redis://|host|[Pp]ort|database|service"):
        RedisAddress.parse(text)


def test_a_bucket_with_everything() -> None:
    assert parse_store("s3://bucket/a/b?endpoint=http://127.0.0.1:8333&region=eu-west-1") == S3Address(
        "bucket", "a/b", "http://127.0.0.1:8333", "eu-west-1"
    )


@pytest.mark.parametrize(
    "text", ["s3://bucket/a?endpoint=http://127.0.0.1:8333&region=eu-west-1", "s3://bucket?region=x", "file:///a/b%20c"]
)
def test_a_store_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_store(text)) == text


def test_a_bucket_alone_is_in_aws() -> None:
    assert parse_store("s3://bucket") == S3Address("bucket", "", None, "us-east-1")


def test_a_folder() -> None:
    assert parse_store("file:///data/my%20store") == FileAddress(Path("/data/my store"))


@pytest.mark.parametrize(
    "text",
    [
        "bucket",
        "s3:///prefix",
        "s3://key:secret@bucket",
        "s3://bucket?endpont=http://h",
        "s3://bucket?endpoint=h:8333",
        "file://data/store",
        "file:relative",
        "gs://bucket",
    ],
)
def test_what_is_no_store_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"s3://|file:///|bucket|AWS_|option|endpoint"):
        parse_store(text)
