"""What the brokers know of topics, asked without creating any (aiokafka 0.14's own ``describe_topics`` does, where
``auto.create.topics.enable`` is on), with their ids: a topic that was deleted and made again has another, and offsets
of the old one mean nothing there.

aiokafka speaks Metadata up to version 5; ids came with version 10 (Kafka 2.8).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
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

from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.connect import client_options, kafka_address, why_not

METADATA = 3
"""The API key."""
NO_ID = ""
"""The id of every topic of a broker that gives none (before 2.8, or not Kafka's own)."""


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
        named: list[tuple[bytes, str, dict[int, bytes]]] = [(bytes(16), name, {}) for name in self._topics]
        return request_struct_class(named, False, False, False, {})


@dataclass(frozen=True)
class TopicState:
    """What the brokers say of a topic that they know.

    ``partitions`` is 0 as long as one of them has no leader: it was made a moment ago. A topic that this user may not
    describe is ``denied``, whether or not it exists.
    """

    topic_id: str
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
            found[topic["topic"]] = TopicState(NO_ID, 0, 0, denied=True)
        elif topic["error_code"]:
            if error not in (UnknownTopicOrPartitionError, LeaderNotAvailableError):
                raise error(topic["topic"])
        else:
            partitions = topic["partitions"]
            led = all(partition["leader"] >= 0 for partition in partitions)
            replicas = min((len(partition["replicas"]) for partition in partitions), default=0)
            found[topic["topic"]] = TopicState(
                _text(topic.get("topic_id", b"")), len(partitions) if led else 0, replicas
            )
    return found


async def ask_topic_ids(client: AIOKafkaClient, topics: Sequence[str]) -> dict[str, str]:
    """Ids of the topics that exist and that we may describe; see :func:`ask_topics`."""
    states = await ask_topics(client, topics)
    return {name: state.topic_id for name, state in states.items() if not state.denied}


async def topic_ids(kafka: KafkaAddress | str, topics: Sequence[str], *, deadline_s: float = 10.0) -> Mapping[str, str]:
    """The id of each of these topics that exists, as 32 hexadecimal digits; ``NO_ID`` where the broker gives none.

    Raises:
        Unavailable: Kafka did not answer in time; says why.
    """
    client = AIOKafkaClient(**client_options(kafka))
    try:
        async with asyncio.timeout(deadline_s):
            await client.bootstrap()
            return await ask_topic_ids(client, topics)
    except (KafkaError, TimeoutError) as error:
        raise Unavailable(f"Kafka at {kafka_address(kafka)}: {await why_not(kafka)}", retry_after_s=1.0) from error
    finally:
        await client.close()


def _text(topic_id: bytes) -> str:
    return uuid.UUID(bytes=topic_id).hex if any(topic_id) else NO_ID
