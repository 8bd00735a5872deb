"""What the brokers know of topics, asked without creating any (aiokafka 0.14's own ``describe_topics`` does, where
``auto.create.topics.enable`` is on), with their ids: a topic that was deleted and made again has another, and offsets
of the old one mean nothing there.

aiokafka speaks Metadata up to version 5; ids came with version 10 (Kafka 2.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    LeaderNotAvailableError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

METADATA = 3
"""The API key."""
_NO_ID = bytes(16)


class _Uuid(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: Any) -> bytes:
        return bytes(data.read(16))


class _Answer(Response):  # type: ignore[misc]
    API_KEY, API_VERSION = METADATA, 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _Struct(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION = METADATA, 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _AskIds(Request[_Struct]):  # type: ignore[misc]
    API_KEY = METADATA

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_Struct]) -> _Struct:
        named: list[tuple[bytes, str, dict[int, bytes]]] = [(_NO_ID, name, {}) for name in self._topics]
        return request_struct_class(named, False, False, False, {})


@dataclass(frozen=True)
class TopicState:
    """What the brokers say of a topic that they know.

    ``topic_id`` is its name where the brokers give no ids (before 2.8, or not Kafka's own).
    ``partitions`` is 0 as long as one of them has no leader: it was made a moment ago. A topic that this user may not
    describe is ``denied``, whether or not it exists.
    """

    topic_id: bytes
    partitions: int
    replicas: int
    denied: bool = False


async def ask_topics(client: AIOKafkaClient, topics: Sequence[str]) -> dict[str, TopicState]:
    """The topics that exist, over a client that is connected already (``consumer._client``, ``producer.client``): one
    small request, which never creates a topic. Raises aiokafka's KafkaError."""
    node = client.get_random_node()
    if node is None:
        raise KafkaConnectionError("no broker is known yet")
    try:
        answer = await client.send(node, _AskIds(topics))
    except (IncompatibleBrokerVersion, NotImplementedError):  # no version 10
        answer = await client.send(node, MetadataRequest(list(topics), allow_auto_topic_creation=False))
    found: dict[str, TopicState] = {}
    for topic in answer.to_object()["topics"]:
        error = for_code(topic["error_code"])
        if error is TopicAuthorizationFailedError:
            found[topic["topic"]] = TopicState(b"", 0, 0, denied=True)
        elif topic["error_code"]:
            if error not in (UnknownTopicOrPartitionError, LeaderNotAvailableError):
                raise error(topic["topic"])
        else:
            partitions = topic["partitions"]
            led = all(partition["leader"] >= 0 for partition in partitions)
            replicas = min((len(partition["replicas"]) for partition in partitions), default=0)
            topic_id = topic.get("topic_id", _NO_ID)
            known = topic_id if topic_id != _NO_ID else topic["topic"].encode()
            found[topic["topic"]] = TopicState(known, len(partitions) if led else 0, replicas)
    return found
