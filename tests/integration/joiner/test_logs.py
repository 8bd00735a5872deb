"""Topics that are made anew, have another prefix or more partitions, meet what Redis keeps of the old ones."""

from __future__ import annotations

from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import KafkaError

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from tests.integration.joiner.harness import World, by_impression, click, decision, joiner, world
from tests.support.eventually import eventually

N = 20


def of_ann(number: int) -> events_pb2.Decision:
    """All in one partition, so that offsets of the old log are higher than those of the new one."""
    return decision(number, user="ann")


async def all_clicked(mesh: World, numbers: range) -> None:
    """Show and click, and wait until each has one example, each a click."""
    shown = [of_ann(number) for number in numbers]
    await mesh.react(*map(click, shown))  # first, so that all are in time however slow this machine is
    await mesh.show(*shown)
    found = by_impression(await mesh.examples(len(numbers)))
    assert found.keys() == set(numbers)
    assert {each.outcome for each in found.values()} == {events_pb2.OUTCOME_CLICK}


async def clicks_and_shown(mesh: World, n: int) -> None:
    """Wait until so many are in Ann's record; more must not be."""

    async def counts() -> tuple[int, int] | None:
        record = await mesh.record("ann")
        found = record.count("clicks"), record.count("shown")
        return found if min(found) >= n else None

    assert await eventually(counts) == (n, n)


async def test_another_topic_prefix_on_the_same_redis_starts_anew_and_keeps_users_records(
    kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as before, joiner(before.settings()):
        await all_clicked(before, range(N))
        await clicks_and_shown(before, N)
    async with (
        world(kafka.bootstrap, fresh_redis, f"{fresh_topic_prefix}v2-", tmp_path) as after,
        joiner(after.settings()),
    ):
        await all_clicked(after, range(N, N + 5))
        await clicks_and_shown(after, N + 5)


async def test_topics_that_were_deleted_and_made_again_start_anew_and_keep_users_records(
    kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as before, joiner(before.settings()):
        await all_clicked(before, range(N))
        await clicks_and_shown(before, N)
    await delete(kafka, before.topics)
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as after, joiner(after.settings()):
        await all_clicked(after, range(N, N + 5))
        await clicks_and_shown(after, N + 5)


async def test_more_partitions_move_users_and_neither_stop_the_join_nor_forget_their_records(
    kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as before, joiner(before.settings()):
        await all_clicked(before, range(N))
        await clicks_and_shown(before, N)
    await grow(kafka, before.topics, 5)
    async with (
        world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path, partitions=5) as after,
        joiner(after.settings()),
    ):
        shown = [of_ann(number) for number in range(N, N + 5)]
        await after.react(*map(click, shown))
        await after.show(*shown)
        found = by_impression(await after.examples(N + 5))
        assert {found[number].outcome for number in range(N, N + 5)} == {events_pb2.OUTCOME_CLICK}
        await clicks_and_shown(after, N + 5)


async def delete(kafka: Kafka, topics: Topics) -> None:
    """Delete all topics, and return when nobody finds them any more."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(list(topics))

        async def gone() -> bool | None:
            found = await admin.describe_topics(list(topics))
            return all(each["error_code"] == 3 for each in found) or None  # UNKNOWN_TOPIC_OR_PARTITION

        await eventually(gone)
    finally:
        await admin.close()


async def grow(kafka: Kafka, topics: Topics, partitions: int) -> None:
    """Give all topics more partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(partitions) for topic in topics})
    finally:
        await admin.close()

    async def known() -> int | None:
        try:
            found = await ensure_topics(kafka.bootstrap, topics, partitions=partitions, replication=1)
        except (TimeoutError, KafkaError):
            return None
        return found if found == partitions else None

    await eventually(known)
