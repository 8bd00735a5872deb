"""Servers that go away, and a joiner that comes back from the dead: nothing is lost and nothing counts twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.kafka import Kafka
from banditmesh.local.valkey import Valkey
from banditmesh.runtime.serve import Server
from tests.integration.joiner.harness import (
    World,
    by_impression,
    click,
    decision,
    joiner,
    joiner_process,
    world,
)


async def until_health_is(server: Server, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel, asyncio.timeout(30):
        async for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
            if answer.status == status:
                return


async def all_clicked(mesh: World, n: int) -> bool:
    found = by_impression(await mesh.examples(n))
    return found.keys() == set(range(n)) and {each.outcome for each in found.values()} == {events_pb2.OUTCOME_CLICK}


async def test_while_redis_is_away_the_joiner_waits_and_is_not_serving(
    kafka: Kafka, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    with Valkey(tmp_path / "valkey") as valkey:
        async with (
            world(kafka.bootstrap, valkey.url, fresh_topic_prefix, tmp_path, window="2s") as mesh,
            joiner(mesh.settings(redis_timeout_s=0.5)) as server,
        ):
            first, second = [decision(i) for i in range(20)], [decision(i) for i in range(20, 40)]
            await mesh.show(*first)
            await mesh.react(*map(click, first))
            await until_health_is(server, health_pb2.HealthCheckResponse.SERVING)
            valkey.kill()
            await mesh.show(*second)
            await mesh.react(*map(click, second))
            await until_health_is(server, health_pb2.HealthCheckResponse.NOT_SERVING)
            valkey.start()
            assert await all_clicked(mesh, 40)
            await until_health_is(server, health_pb2.HealthCheckResponse.SERVING)


async def test_after_a_broker_was_killed_every_impression_still_becomes_one_example(
    fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    with Kafka(tmp_path / "kafka") as kafka:
        async with (
            world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as mesh,
            joiner(mesh.settings()) as server,
        ):
            shown = [decision(i) for i in range(40)]
            await mesh.show(*shown)
            await mesh.react(*map(click, shown))
            await until_health_is(server, health_pb2.HealthCheckResponse.SERVING)
            await asyncio.to_thread(kafka.kill)
            await until_health_is(server, health_pb2.HealthCheckResponse.NOT_SERVING)
            await asyncio.to_thread(kafka.start)
            assert await all_clicked(mesh, 40)
            await mesh.ticks_after(mesh.topics.examples)
            assert await all_clicked(mesh, 40)


async def test_a_joiner_that_slept_past_its_session_is_fenced_and_repeats_nothing(
    kafka: Kafka, fresh_redis: str, fresh_topic_prefix: str, tmp_path: Path
) -> None:
    async with world(kafka.bootstrap, fresh_redis, fresh_topic_prefix, tmp_path) as mesh:
        with joiner_process(mesh, tmp_path / "zombie.log") as zombie:
            await mesh.ticks_after(mesh.topics.examples)
            shown = [decision(i) for i in range(60)]
            await mesh.show(*shown[:30])
            await mesh.react(*map(click, shown[:30]))
            zombie.suspend()
            with joiner_process(mesh, tmp_path / "heir.log"):
                await mesh.show(*shown[30:])
                await mesh.react(*map(click, shown[30:]))
                assert await all_clicked(mesh, 60)
                zombie.wake()
                await mesh.show(*(decision(i) for i in range(60, 80)))
                await mesh.react(*(click(decision(i)) for i in range(60, 80)))
                await mesh.examples(80)
                await mesh.ticks_after(mesh.topics.examples, 3)
                assert await all_clicked(mesh, 80)
