"""Which log an offset counts: a topic that is made anew has its old name and other offsets."""

from __future__ import annotations

from hashlib import blake2b

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from banditmesh.runtime.kafka.metadata import ask_topics


async def topic_id(client: AIOKafkaClient, topic: str) -> bytes:
    """The topic's id; its name where the brokers are older than ids (Kafka 2.7).

    Raises:
        KafkaError: There is no such topic, or no broker answers.
    """
    state = (await ask_topics(client, [topic])).get(topic)
    if state is None:
        raise UnknownTopicOrPartitionError(topic)
    if state.denied:
        raise TopicAuthorizationFailedError(topic)
    return state.topic_id


def log_number(identity: bytes, partition: int) -> int:
    """A number that names one partition of one topic, for ever, in 1 … 2^32 - 1: what is kept beside its offsets.

    Args:
        identity: From :func:`topic_id`.
        partition: Its number in the topic.
    """
    digest = blake2b(identity, digest_size=4, salt=partition.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") or 1
