"""Topics of a mesh on a real broker: created when missing, refused when they are not what the mesh needs."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from structlog.testing import capture_logs

from banditmesh.local import ports
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.errors import ConfigurationError, Unavailable
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from tests.support.topic_settings import set_most_bytes

GOOD = {"message.timestamp.type": "LogAppendTime"}


@pytest.fixture
def topics(fresh_topic_prefix: str) -> Topics:
    return Topics.named(fresh_topic_prefix)


async def ensure(kafka: Kafka, topics: Topics, **changes: object) -> int:
    wanted = {"partitions": 3, "replication": 1, "deadline_s": 30.0} | changes
    return await ensure_topics(kafka.bootstrap, topics, **wanted)  # type: ignore[arg-type]


async def create(kafka: Kafka, name: str, partitions: int, settings: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
    while (await admin.describe_topics([name]))[0]["error_code"]:  # the controller knows it, the broker not yet
        pass
    await admin.close()


async def settings_of(kafka: Kafka, name: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    await admin.close()
    (resource,) = response.resources
    return {entry[0]: entry[1] for entry in resource[4]}


async def test_missing_topics_are_created_with_the_brokers_time(kafka: Kafka, topics: Topics) -> None:
    assert await ensure(kafka, topics) == 3
    for name in topics:
        settings = await settings_of(kafka, name)
        assert settings["message.timestamp.type"] == "LogAppendTime"
        assert settings["cleanup.policy"] == "delete"
        assert settings["unclean.leader.election.enable"] == "false"
        assert settings["retention.bytes"] == "-1"


async def test_a_topic_that_forgets_by_size_is_told_of(kafka: Kafka, topics: Topics) -> None:
    for name in topics:
        size = {"retention.bytes": "1000000"} if name == topics.examples else {}
        settings = {"message.timestamp.type": "LogAppendTime", "unclean.leader.election.enable": "false"}
        await create(kafka, name, 3, settings | size)

    with capture_logs() as logs:
        await ensure(kafka, topics)

    told = [(each["topic"], each["retention_bytes"]) for each in logs if "retention_bytes" in each]
    assert told == [(topics.examples, 1_000_000)]


async def test_several_services_may_start_at_the_same_time(kafka: Kafka, topics: Topics) -> None:
    assert await asyncio.gather(*(ensure(kafka, topics) for _ in range(4))) == [3] * 4


async def test_new_topics_get_as_many_partitions_as_the_others_have(kafka: Kafka, topics: Topics) -> None:
    await create(kafka, topics.impressions, 2, GOOD)
    assert await ensure(kafka, topics) == 2


async def test_new_topics_remember_for_as_long_as_the_join_may_be_late(kafka: Kafka, topics: Topics) -> None:
    await ensure(kafka, topics, min_retention_s=30 * 86_400.0)
    assert (await settings_of(kafka, topics.impressions))["retention.ms"] == "2592000000"


async def test_topics_with_different_partition_counts_are_refused_by_name_and_count(
    kafka: Kafka, topics: Topics
) -> None:
    await create(kafka, topics.impressions, 2, GOOD)
    await create(kafka, topics.reactions, 5, GOOD)
    with pytest.raises(ConfigurationError) as refused:
        await ensure(kafka, topics)
    assert f"topic {topics.impressions!r}: 2 partitions" in refused.value.problems
    assert f"topic {topics.reactions!r}: 5 partitions" in refused.value.problems


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("cleanup.policy", "compact", "delete"),
        ("unclean.leader.election.enable", "true", "false"),
        ("retention.ms", "60000", "at least 3600000 (join.window + join.slack)"),
        ("max.message.bytes", "1000", "at least 16384"),
    ],
)
async def test_a_topic_with_a_wrong_setting_is_refused_by_name_setting_and_value(
    kafka: Kafka, topics: Topics, setting: str, value: str, wanted: str
) -> None:
    await create(kafka, topics.reactions, 3, GOOD | {setting: value})
    with pytest.raises(ConfigurationError) as refused:
        await ensure(kafka, topics, min_retention_s=3600.0)
    assert refused.value.problems == (f"topic {topics.reactions!r}: {setting} is {value}, must be {wanted}",)


async def test_a_topic_that_is_set_wrong_while_the_mesh_runs_is_refused_by_whoever_rests_on_it(
    kafka: Kafka, topics: Topics
) -> None:
    await ensure(kafka, topics)
    await set_most_bytes(kafka.bootstrap, 600, topics.dead_letters, unread=topics.decisions)
    tracker = (topics.impressions, topics.reactions)
    assert await ensure(kafka, topics, again=True, rests_on=tracker) == 3
    with pytest.raises(ConfigurationError) as refused:
        await ensure(kafka, topics, again=True, rests_on=(*tracker, topics.dead_letters))
    said = f"topic {topics.dead_letters!r}: max.message.bytes is 600, must be at least 16384"
    assert refused.value.problems == (said,)


async def test_dead_letters_may_be_forgotten_sooner(kafka: Kafka, topics: Topics) -> None:
    await create(kafka, topics.dead_letters, 3, GOOD | {"retention.ms": "60000"})
    assert await ensure(kafka, topics, min_retention_s=3600.0) == 3


async def test_more_replicas_than_brokers_are_a_wrong_configuration(kafka: Kafka, topics: Topics) -> None:
    with pytest.raises(ConfigurationError, match="replication 3: InvalidReplicationFactorError"):
        await ensure(kafka, topics, replication=3)


async def test_a_kafka_that_is_not_there_is_unavailable() -> None:
    (port,) = ports.free(1)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        await ensure_topics(f"127.0.0.1:{port}", Topics.named(), partitions=1, replication=1)


async def test_topics_that_were_there_and_are_gone_are_made_anew_and_that_is_said(
    kafka: Kafka, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    await ensure(kafka, topics)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_topics([topics.examples])
    while not (await admin.describe_topics([topics.examples]))[0]["error_code"]:
        pass  # the controller knows it, the broker not yet
    await admin.close()
    capsys.readouterr()
    assert await ensure(kafka, topics, again=True) == 3
    said = capsys.readouterr().out
    assert "topics that were there are gone" in said
    assert topics.examples in said
    assert topics.impressions not in said
    await ensure(kafka, topics, again=True)
    assert capsys.readouterr().out == ""
