"""What the joiner answers to engineers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.joiner.v1 import joiner_pb2, joiner_pb2_grpc
from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.local.valkey import Valkey
from banditmesh.runtime import keys, packing
from banditmesh.runtime.redis import RedisClient
from tests.integration.joiner.harness import World, click, decision, joiner, mute, world
from tests.support.eventually import eventually


@pytest.fixture
async def mesh(kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as here:
        yield here


@pytest.fixture
async def stub(mesh: World) -> AsyncIterator[joiner_pb2_grpc.JoinerServiceStub]:
    async with (
        joiner(mesh.settings()) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield joiner_pb2_grpc.JoinerServiceStub(channel)


async def test_the_user_state_holds_what_the_user_did_late_or_not_and_once(
    mesh: World, stub: joiner_pb2_grpc.JoinerServiceStub, valkey: Valkey
) -> None:
    first, second, third = (decision(i, user="ann") for i in (1, 2, 3))
    store = RedisClient(valkey.url, timeout_s=2.0)
    content = provider_pb2.Content(content_id="film-1").SerializeToString()
    await store.client.set(keys.content(content_key("films", "film-1")), packing.pack_content("films", content))
    await store.close()
    await mesh.show(first, second)
    clicked, _, _ = await mesh.react(click(first), click(first), mute(second))
    await mesh.examples(2)
    await mesh.react(click(second))
    await mesh.read(mesh.topics.late_reactions, lambda got: len(got) >= 1)
    await mesh.show(third)
    await mesh.examples(3)
    state = await stub.GetUserState(joiner_pb2.GetUserStateRequest(user_id="ann"))
    assert state.feedback_count == 3
    assert [each.content_key for each in state.clicks] == [content_key("films", f"film-{i}") for i in (2, 1)]
    assert [each.content for each in state.clicks] == ["", "films/film-1"]
    assert [each.content_key for each in state.mutes] == [content_key("films", "film-2")]
    assert state.clicks[1].time.seconds == clicked.timestamp_ms // 1000
    assert state.shown_count == 3
    assert [(each.content_key, each.count) for each in state.shown] == [
        (content_key("films", f"film-{i}"), 1) for i in (3, 2, 1)
    ]
    assert state.shown[2].content == "films/film-1"
    assert state.shown[0].last_day.seconds == clicked.timestamp_ms // 86_400_000 * 86_400


async def test_every_stream_shows_how_far_it_is_in_its_consumer_group(
    mesh: World, stub: joiner_pb2_grpc.JoinerServiceStub
) -> None:
    user = decision(1).user_id
    acked = await mesh.show(*(decision(i, user=user) for i in range(5)))
    await mesh.react(*(click(decision(i, user=user)) for i in range(5)))
    await mesh.examples(5)
    partition = acked[0].partition
    prefix = mesh.topics.impressions.removesuffix("impressions")
    admin = AIOKafkaAdminClient(bootstrap_servers=mesh.kafka)
    await admin.start()
    try:
        for group, topic in (
            ("joiner-impressions", mesh.topics.impressions),
            ("joiner-shown", mesh.topics.impressions),
            ("joiner-reactions", mesh.topics.reactions),
        ):
            at = TopicPartition(topic, partition)

            async def reported(group: str = group, at: TopicPartition = at) -> int | None:
                found = await admin.list_consumer_group_offsets(prefix + group, partitions=[at])
                return found[at].offset if found[at].offset >= 5 else None

            assert await eventually(reported) >= 5
    finally:
        await admin.close()


async def test_a_user_who_never_reacted_has_an_empty_state(stub: joiner_pb2_grpc.JoinerServiceStub) -> None:
    state = await stub.GetUserState(joiner_pb2.GetUserStateRequest(user_id="nobody"))
    assert state == joiner_pb2.GetUserStateResponse()


@pytest.mark.parametrize("user_id", ["", "é" * 65])
async def test_a_user_id_that_is_empty_or_too_long_is_refused(
    stub: joiner_pb2_grpc.JoinerServiceStub, user_id: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="user_id") as error:
        await stub.GetUserState(joiner_pb2.GetUserStateRequest(user_id=user_id))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_status_tells_how_far_each_partition_is(mesh: World, stub: joiner_pb2_grpc.JoinerServiceStub) -> None:
    acked = await mesh.show(*(decision(i) for i in range(20)))
    await mesh.examples(20)
    await mesh.ticks_after(mesh.topics.examples)
    status = await stub.GetJoinStatus(joiner_pb2.GetJoinStatusRequest())
    expected = {partition: sum(each.partition == partition for each in acked) for partition in range(2)}
    assert {each.partition: each.next_offset for each in status.impressions} == expected
    assert {each.partition: each.examples for each in status.impressions} == expected
    assert {each.partition: each.end_offset for each in status.impressions} == expected
    assert all(each.watermark.ToMilliseconds() > acked[-1].timestamp_ms for each in status.reactions)
    assert [each.partition for each in status.reactions] == [0, 1]
