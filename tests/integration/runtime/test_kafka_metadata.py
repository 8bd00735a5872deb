"""What tells a log from another one of the same name."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from banditmesh.local import ports
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.kafka.metadata import ask_topic_ids, topic_ids
from tests.support.eventually import eventually


async def test_a_topic_that_was_deleted_and_made_again_has_another_id(kafka: Kafka, fresh_topic_prefix: str) -> None:
    name, other = f"{fresh_topic_prefix}examples", f"{fresh_topic_prefix}other"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()

    async def made() -> str | None:
        return (await topic_ids(kafka.bootstrap, [name])).get(name)

    async def gone() -> bool:
        return await made() is None

    await admin.create_topics([NewTopic(name, 3, 1), NewTopic(other, 1, 1)])
    first = await eventually(made)
    assert len(first) == 32
    assert await made() == first
    ids = await topic_ids(kafka.bootstrap, [name, other, "no-such-topic"])
    assert set(ids) == {name, other}
    assert ids[other] != first

    await admin.delete_topics([name])
    await eventually(gone)
    await admin.create_topics([NewTopic(name, 3, 1)])
    assert await eventually(made) != first
    await admin.close()


async def test_a_consumer_that_is_connected_asks_by_one_request(kafka: Kafka, fresh_topic_prefix: str) -> None:
    name = f"{fresh_topic_prefix}examples"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 3, 1)])
    await admin.close()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    await consumer.start()

    async def asked() -> str | None:
        return (await ask_topic_ids(consumer._client, [name])).get(name)

    assert await eventually(asked) == (await topic_ids(kafka.bootstrap, [name]))[name]
    await consumer.stop()


async def test_a_kafka_that_is_away_is_unavailable_and_says_why() -> None:
    (port,) = ports.free(1)
    with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port}: .*[Cc]onnect"):
        await topic_ids(f"127.0.0.1:{port}", ["x"])
