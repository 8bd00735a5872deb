"""What the brokers know of topics, asked without creating any."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import UnknownTopicOrPartitionError

from banditmesh.local.kafka import Kafka
from banditmesh.runtime.kafka.connect import client_options
from banditmesh.runtime.kafka.identity import topic_id
from banditmesh.runtime.kafka.metadata import TopicState, ask_topics
from tests.support.eventually import eventually


@pytest_asyncio.fixture
async def client(kafka: Kafka) -> AsyncIterator[AIOKafkaClient]:
    opened = AIOKafkaClient(**client_options(kafka.bootstrap))
    await opened.bootstrap()
    yield opened
    await opened.close()


async def test_a_topic_that_was_deleted_and_made_again_has_another_id(
    kafka: Kafka, client: AIOKafkaClient, fresh_topic_prefix: str
) -> None:
    name, other = f"{fresh_topic_prefix}examples", f"{fresh_topic_prefix}other"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()

    async def made() -> TopicState | None:
        state = (await ask_topics(client, [name])).get(name)
        return state if state is not None and state.partitions else None

    async def gone() -> bool:
        return not await ask_topics(client, [name])

    await admin.create_topics([NewTopic(name, 3, 1), NewTopic(other, 1, 1)])
    first = await eventually(made)
    assert (len(first.topic_id), first.partitions, first.replicas) == (16, 3, 1)
    assert await topic_id(client, name) == first.topic_id
    states = await ask_topics(client, [name, other, "no-such-topic"])
    assert set(states) == {name, other}
    assert states[other].topic_id != first.topic_id

    await admin.delete_topics([name])
    await eventually(gone)
    with pytest.raises(UnknownTopicOrPartitionError):
        await topic_id(client, name)
    await admin.create_topics([NewTopic(name, 3, 1)])
    assert (await eventually(made)).topic_id != first.topic_id
    await admin.close()


async def test_asking_for_a_topic_creates_none_where_brokers_create_what_is_asked_for(tmp_path: Path) -> None:
    """Kafka's own default. The topic would get the brokers' settings, and a client's clock."""
    with Kafka(tmp_path, options={"auto.create.topics.enable": "true"}) as eager:
        client = AIOKafkaClient(**client_options(eager.bootstrap))
        await client.bootstrap()
        assert await ask_topics(client, ["not-yet"]) == {}
        cluster = await client.fetch_all_metadata()
        assert "not-yet" not in cluster.topics()
        await client.close()
