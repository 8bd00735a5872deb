"""Fixtures with real servers. Each starts when the first test of a worker asks for it and lives as long as the session.

A test that kills a server takes one of its own, from ``banditmesh.local``.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest

from banditmesh.local.hdfs import Hdfs
from banditmesh.local.kafka import Kafka
from banditmesh.local.s3 import S3
from banditmesh.local.valkey import Valkey, ValkeyCluster

BUCKET = "banditmesh-tests"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker; use topics whose names begin with ``fresh_topic_prefix``."""
    with Kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One node; ``fresh_redis`` is the same one, emptied."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """Three masters; ``fresh_redis_cluster`` is the same cluster, emptied."""
    with ValkeyCluster(tmp_path_factory.mktemp("valkey-cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A store with the bucket ``BUCKET``; its credentials are in the environment."""
    with S3(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as environment:
        for name, value in server.env.items():
            environment.setenv(name, value)
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """A NameNode and a DataNode."""
    with Hdfs(tmp_path_factory.mktemp("hdfs")) as server:
        yield server


@pytest.fixture
def fresh_topic_prefix(request: pytest.FixtureRequest) -> str:
    """The beginning of names of topics, groups and transactional ids that no other test uses."""
    readable = re.sub(r"[^a-zA-Z0-9_]+", "-", request.node.name)[:80]
    return f"{readable}-{uuid.uuid4().hex[:8]}-"


@pytest.fixture
def fresh_redis(valkey: Valkey) -> str:
    """The URL of the empty single node, as BANDITMESH_REDIS takes it."""
    valkey.command("FLUSHALL")
    return valkey.url


@pytest.fixture
def fresh_redis_cluster(valkey_cluster: ValkeyCluster) -> str:
    """The URL of the empty cluster, as BANDITMESH_REDIS takes it."""
    for node in valkey_cluster.nodes:
        node.command("FLUSHALL")
    return valkey_cluster.url


@pytest.fixture
def fresh_store(s3: S3) -> str:
    """The URL of an empty place in the S3 store, as BANDITMESH_STORE takes it."""
    return s3.url(BUCKET, uuid.uuid4().hex)
