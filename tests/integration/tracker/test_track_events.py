"""TrackEvents over a socket, onto a real Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2, tracker_pb2_grpc
from banditmesh.local.kafka import Kafka
from banditmesh.runtime.kafka.topics import partition_of
from banditmesh.runtime.serve import Server
from banditmesh.runtime.token import KeyRing
from tests.integration.tracker.running import KEYS, PARTITIONS, decision, records_of, running_tracker, shown

METHOD = "/banditmesh.tracker.v1.EventTrackerService/TrackEvents"


@pytest.fixture
async def tracker(kafka: Kafka, fresh_topic_prefix: str, tmp_path: Path) -> AsyncIterator[Server]:
    async with running_tracker(tmp_path, kafka.bootstrap, fresh_topic_prefix) as server:
        yield server


@pytest.fixture
async def channel(tracker: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{tracker.port}") as channel:
        yield channel


async def track(channel: grpc.aio.Channel, *events: tracker_pb2.Event) -> tracker_pb2.TrackEventsResponse:
    stub = tracker_pb2_grpc.EventTrackerServiceStub(channel)
    response = await stub.TrackEvents(tracker_pb2.TrackEventsRequest(events=events), timeout=20)
    assert isinstance(response, tracker_pb2.TrackEventsResponse)
    return response


async def refused(channel: grpc.aio.Channel, *events: tracker_pb2.Event) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await track(channel, *events)
    return error.value


async def sent_raw(channel: grpc.aio.Channel, body: bytes) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary(METHOD)(body, timeout=20)
    return error.value


async def test_accepted_events_stand_in_their_topics_under_the_users_key_and_partition(
    channel: grpc.aio.Channel, kafka: Kafka, fresh_topic_prefix: str
) -> None:
    users = [f"user-{number}" for number in range(20)]
    tokens = {user: decision(user)[1] for user in users}
    clicks = [tracker_pb2.Event(impression_token=token, click=events_pb2.Click()) for token in tokens.values()]
    response = await track(channel, *map(shown, tokens.values()), *clicks)
    assert response.accepted == 40
    for topic in ("impressions", "reactions"):
        records = await records_of(kafka.bootstrap, fresh_topic_prefix + topic)
        assert {(record.key, record.partition) for record in records} == {
            (user.encode(), partition_of(user.encode(), PARTITIONS)) for user in users
        }


async def test_what_is_stored_is_what_the_token_says(
    channel: grpc.aio.Channel, kafka: Kafka, fresh_topic_prefix: str
) -> None:
    impression_id, token = decision("u")
    response = await track(channel, shown(token))
    assert response.results[0] == tracker_pb2.EventResult(
        status=tracker_pb2.EVENT_STATUS_ACCEPTED, impression_id=impression_id
    )
    (record,) = await records_of(kafka.bootstrap, fresh_topic_prefix + "impressions")
    impression = events_pb2.Impression.FromString(record.value or b"")
    assert impression.decision.impression_id == impression_id
    assert len(impression.decision.features.ids) == 30
    assert record.timestamp_type == 1  # LogAppendTime


async def test_each_bad_event_gets_its_own_answer_in_its_place(channel: grpc.aio.Channel) -> None:
    foreign = KeyRing.parse("9:" + "0b" * 32)
    forger = KeyRing.parse("1:" + "0b" * 32)
    purchase = events_pb2.TargetAction(name="purchace")
    response = await track(
        channel,
        shown(decision()[1]),
        shown(decision(keys=forger)[1]),
        shown(decision(keys=foreign)[1]),
        shown(decision(age_s=3601)[1]),
        shown(b"token"),
        tracker_pb2.Event(impression_token=decision()[1], target=purchase),
        tracker_pb2.Event(impression_token=decision()[1]),
        shown(KEYS.sign(events_pb2.Decision())),
        shown(decision()[1]),
    )
    names = [tracker_pb2.EventStatus.Name(result.status).removeprefix("EVENT_STATUS_") for result in response.results]
    assert names == [
        "ACCEPTED",
        "TOKEN_FORGED",
        "TOKEN_UNKNOWN_KEY",
        "TOKEN_EXPIRED",
        "TOKEN_MALFORMED",
        "UNKNOWN_TARGET",
        "INVALID",
        "TOKEN_MALFORMED",
        "ACCEPTED",
    ]
    assert response.accepted == 2
    assert all(
        bool(result.message) != (name == "ACCEPTED") for result, name in zip(response.results, names, strict=True)
    )


@pytest.mark.parametrize("count", [0, 1001])
async def test_no_events_and_too_many_are_an_invalid_argument_that_names_the_field(
    channel: grpc.aio.Channel, count: int
) -> None:
    error = await refused(channel, *[shown(decision()[1])] * count)
    status = rpc_status.from_call(error)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert status is not None
    violations = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violations) for detail in status.details)
    assert violations.field_violations[0].field == "events"
    assert str(count) in violations.field_violations[0].description


async def test_a_thousand_events_are_accepted(channel: grpc.aio.Channel) -> None:
    response = await track(channel, *[shown(decision(f"u{number}")[1]) for number in range(1000)])
    assert response.accepted == 1000


async def test_a_body_of_five_megabytes_is_too_large(channel: grpc.aio.Channel) -> None:
    assert (await sent_raw(channel, bytes(5 * 1024 * 1024))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_body_of_garbage_is_an_invalid_argument_and_the_service_lives_on(channel: grpc.aio.Channel) -> None:
    error = await sent_raw(channel, b"\xff" * 40)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "banditmesh.tracker.v1.TrackEventsRequest" in (error.details() or "")
    assert (await track(channel, shown(decision()[1]))).accepted == 1


async def test_health_names_the_service(channel: grpc.aio.Channel) -> None:
    request = health_pb2.HealthCheckRequest(service="banditmesh.tracker.v1.EventTrackerService")
    answer = await health_pb2_grpc.HealthStub(channel).Check(request)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_metrics_say_what_was_tracked(channel: grpc.aio.Channel, tracker: Server) -> None:
    await track(channel, shown(decision()[1]))
    sample = tracker.registry.get_sample_value
    assert sample("banditmesh_tracker_events_total", {"kind": "shown", "status": "accepted"}) == 1
    assert sample("banditmesh_tracker_waiting_records") == 0
    assert sample("banditmesh_dependency_up", {"dependency": "kafka"}) == 1
