"""The loop on a real Kafka: consume, learn, publish, go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from tests.integration.learner.running import published, running, settings
from tests.support.examples import T0_MS, ExamplesTopic, Given, closing, example, tick, traffic


async def test_what_is_consumed_is_learned_and_published(topic: ExamplesTopic, any_store: str, tmp_path: Path) -> None:
    await topic.send(traffic(500, partitions=3, seed=1))
    clock = ManualClock()
    async with running(settings(tmp_path, topic.bootstrap, any_store, topic.prefix), clock) as learner:
        status = await learner.until_learned(500)
        assert status.version == 0
        await clock.advance(30)
        while (status := await learner.status("linucb")).version == 0:
            await learner.turn()
        assert status.watermark.ToMilliseconds() == T0_MS + 70_000
    result = await published(any_store, status.model)
    assert (result.manifest.version, result.manifest.examples) == (1, 500)


async def test_a_learner_that_stops_publishes_the_rest_and_goes_on_there(
    topic: ExamplesTopic, file_store: str, tmp_path: Path
) -> None:
    config = settings(tmp_path, topic.bootstrap, file_store, topic.prefix)
    records = traffic(300, partitions=3, seed=2)
    await topic.send(records[:150])
    async with running(config) as learner:
        first = await learner.until_learned(100)
    await topic.send(records[150:])
    async with running(config) as learner:
        status = await learner.until_learned(300)
        assert status.version == 1
        assert status.duplicates == 0
        assert learner.metric("examples_total", placement="home", model=status.model) < 300
    assert (await published(file_store, first.model)).manifest.examples == 300


async def test_only_committed_examples_are_learned(
    kafka: Kafka, fresh_topic_prefix: str, file_store: str, tmp_path: Path
) -> None:
    topics = Topics.named(fresh_topic_prefix)
    await ensure_topics(kafka.bootstrap, topics, partitions=2, replication=1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{fresh_topic_prefix}tx")
    await producer.start()

    async def write(n: int, start: int) -> None:
        for offset in range(start, start + n):
            one = example(source=(0, offset), content=f"c{offset}")
            await producer.send(topics.examples, one.SerializeToString(), b"u1", 0)

    async with running(settings(tmp_path, kafka.bootstrap, file_store, fresh_topic_prefix)) as learner:
        async with producer.transaction():
            await write(5, 0)
        await producer.begin_transaction()
        await write(5, 100)
        await producer.flush()
        await producer.abort_transaction()
        async with producer.transaction():
            await write(5, 200)
        # Broker time of the topic: ticks go on until a whole second has passed in both partitions.
        while (status := await learner.status("linucb")).examples < 10:
            async with producer.transaction():
                for partition in (0, 1):
                    await producer.send_and_wait(topics.examples, tick().SerializeToString(), b"", partition)
        assert status.examples == 10
    await producer.stop()
    result = await published(file_store, status.model)
    assert result.manifest.sources == {0: 204}


async def test_poison_of_every_kind_goes_to_the_dead_letters_and_the_rest_is_learned(
    topic: ExamplesTopic, file_store: str, tmp_path: Path
) -> None:
    nan_reward, nan_feature = example(reward=float("nan")), example(values=(1.0, float("nan")))
    no_outcome = example()
    no_outcome.joined.outcome = events_pb2.OUTCOME_UNSPECIFIED
    poison = [b"\xff\xff", b"", *(each.SerializeToString() for each in (nan_reward, nan_feature, no_outcome))]
    good = [Given(0, T0_MS + 10, example(source=(0, offset)).SerializeToString()) for offset in (1, 2)]
    bad = [Given(1, T0_MS + 20, value) for value in poison]
    await topic.send([good[0], *bad, good[1], *closing(3, T0_MS + 9000)])
    async with running(settings(tmp_path, topic.bootstrap, file_store, topic.prefix)) as learner:
        await learner.until_learned(2)
        assert learner.metric("dead_letters_total", reason="not_finite") == 2
    consumer = AIOKafkaConsumer(
        topic.dead_letters, bootstrap_servers=topic.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    letters = [events_pb2.DeadLetter.FromString((await consumer.getone()).value) for _ in poison]
    await consumer.stop()
    assert [(each.reason, each.value, each.offset) for each in letters] == [
        (reason, value, offset)
        for offset, (reason, value) in enumerate(
            zip(["not_a_protobuf", "empty", "not_finite", "not_finite", "no_outcome"], poison, strict=True)
        )
    ]
    assert {(each.topic, each.partition, each.consumer, each.time_ms) for each in letters} == {
        (topic.name, 1, "learner", T0_MS + 20)
    }


async def test_a_second_copy_of_an_example_is_dropped_and_counted(
    topic: ExamplesTopic, file_store: str, tmp_path: Path
) -> None:
    records = traffic(100, partitions=3, seed=3)
    again = [Given(each.partition, T0_MS + 65_000, each.value) for each in records[:100]]
    await topic.send([*records[:100], *again, *closing(3, T0_MS + 90_000)])
    async with running(settings(tmp_path, topic.bootstrap, file_store, topic.prefix)) as learner:
        while (status := await learner.status("linucb")).watermark.ToMilliseconds() < T0_MS + 90_000:
            await learner.turn()
        assert (status.examples, status.duplicates) == (100, 100)


async def test_offsets_that_retention_has_taken_are_counted_and_the_rest_is_learned(
    topic: ExamplesTopic, file_store: str, tmp_path: Path
) -> None:
    config = settings(tmp_path, topic.bootstrap, file_store, topic.prefix)
    records = traffic(200, partitions=3, seed=4)
    await topic.send(records[:100])
    async with running(config) as learner:
        learned = (await learner.until_learned(20)).examples
    await topic.send(records[100:])
    await topic.forget(before={0: 30, 1: 30, 2: 30})
    async with running(config) as learner:
        while (status := await learner.status("linucb")).watermark.ToMilliseconds() < T0_MS + 70_000:
            await learner.turn()
        assert learned <= status.examples <= 200
        # What was neither learned nor read is lost: the two numbers account for every example.
        assert status.examples + learner.metric("lost_offsets_total") == 200


async def test_health_is_serving_while_kafka_answers_even_without_the_store(
    topic: ExamplesTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    nowhere = "s3://bucket/prefix?endpoint=http://127.0.0.1:9"
    async with running(settings(tmp_path, topic.bootstrap, nowhere, topic.prefix)) as learner:
        health = health_pb2_grpc.HealthStub(learner.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="banditmesh.learner.v1.LearnerService"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert learner.registry.get_sample_value("banditmesh_dependency_up", {"dependency": "store"}) == 0
