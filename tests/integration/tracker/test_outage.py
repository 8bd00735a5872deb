"""Kafka dies under the tracker and comes back: callers are told to retry, and nothing acknowledged is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from banditmesh.client import MeshClient
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2, tracker_pb2_grpc
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.errors import Unavailable, from_rpc_error
from banditmesh.runtime.serve import Server
from tests.integration.tracker.running import decision, records_of, running_tracker, shown

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE = "banditmesh.tracker.v1.EventTrackerService"
WORKERS = 20


@pytest.fixture
def broker(tmp_path: Path) -> Kafka:
    return Kafka(tmp_path / "kafka")


class Load:
    """Users who track one impression after the other until they are told to come back later."""

    def __init__(self, stub: tracker_pb2_grpc.EventTrackerServiceAsyncStub) -> None:
        self._stub = stub
        self.accepted: set[bytes] = set()
        self.enough = asyncio.Event()

    async def run(self, user: str) -> Unavailable:
        while True:
            impression_id, token = decision(user)
            try:
                response = await self._stub.TrackEvents(
                    tracker_pb2.TrackEventsRequest(events=[shown(token)]), timeout=20
                )
            except grpc.aio.AioRpcError as error:
                refusal = from_rpc_error(error)
                assert isinstance(refusal, Unavailable), refusal
                return refusal
            assert response.accepted == 1
            self.accepted.add(impression_id)
            if len(self.accepted) >= 10 * WORKERS:
                self.enough.set()


async def wait_for(watch: AsyncIterator[health_pb2.HealthCheckResponse], status: int) -> None:
    async for answer in watch:
        if answer.status == status:
            return


async def test_nothing_acknowledged_is_missing_after_the_broker_was_killed_and_came_back(
    broker: Kafka, tmp_path: Path
) -> None:
    broker.start()
    try:
        async with running_tracker(tmp_path, broker.bootstrap, "", ack_timeout_s=1.0) as server:
            await go_through_an_outage(broker, server)
    finally:
        broker.stop()


async def go_through_an_outage(broker: Kafka, server: Server) -> None:
    address = f"127.0.0.1:{server.port}"
    async with grpc.aio.insecure_channel(address) as channel, MeshClient(address, address) as client:
        load = Load(tracker_pb2_grpc.EventTrackerServiceStub(channel))
        health = aiter(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE)))
        await wait_for(health, SERVING)
        users = [asyncio.create_task(load.run(f"user-{number}")) for number in range(WORKERS)]
        await load.enough.wait()

        broker.kill()
        refusals = await asyncio.gather(*users)
        assert all((refusal.retry_after_s or 0) > 0 for refusal in refusals)
        await wait_for(health, NOT_SERVING)

        await asyncio.to_thread(broker.start)
        after_id, token = decision("late")
        assert await client.track([shown(token)], deadline_s=60) == [None]
        await wait_for(health, SERVING)

        stored = {
            events_pb2.Impression.FromString(record.value or b"").decision.impression_id
            for record in await records_of(broker.bootstrap, "impressions")
        }
        assert load.accepted | {after_id} <= stored
