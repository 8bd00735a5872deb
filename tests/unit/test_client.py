"""The client against servicers of the test, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from banditmesh.client import ClientLimits, MeshClient, Nothing, Origin, Reason, Selected, click, mute, shown, target
from banditmesh.coalescing import CoalescingLimits
from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2, crs_engine_pb2_grpc
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.provider.v1 import provider_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2, tracker_pb2_grpc
from banditmesh.local import ports
from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MeshError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from banditmesh.runtime.serve import Server, ServerOptions

UNTIL = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CONTENT = provider_pb2.Content(
    title="Volume 3",
    uri="app://comics/3",
    attributes=[
        provider_pb2.Attribute(name="genre", values=["noir", "crime"]),
        provider_pb2.Attribute(name="price", number=4.5),
    ],
)


def selected(content_id: str) -> crs_engine_pb2.SelectedContent:
    content = provider_pb2.Content(content_id=content_id)
    content.MergeFrom(CONTENT)
    return crs_engine_pb2.SelectedContent(
        service="comics",
        content=content,
        impression_token=b"token of " + content_id.encode(),
        impression_id=bytes(16),
        logic="new",
        variant="linucb",
        origin=events_pb2.ORIGIN_POLICY,
    )


class Engine(crs_engine_pb2_grpc.CrsEngineServiceServicer):
    """Selects "for <user>"; ``muted`` has an empty slot, ``stranger`` is an error. ``before`` runs ahead of answers."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failures: list[MeshError] = []
        self.before: Callable[[], Any] | None = None

    async def BatchSelectContents(self, request: Any, context: Any) -> crs_engine_pb2.BatchSelectContentsResponse:
        self.batches.append([each.user_id for each in request.requests])
        if self.failures:
            raise self.failures.pop(0)
        if self.before is not None:
            await self.before()
        return crs_engine_pb2.BatchSelectContentsResponse(results=map(self._result, request.requests))

    async def RecommendContents(self, request: Any, context: Any) -> crs_engine_pb2.RecommendContentsResponse:
        if self.failures:
            raise self.failures.pop(0)
        if self.before is not None:
            await self.before()
        if request.user_id == "muted":
            return crs_engine_pb2.RecommendContentsResponse(no_content=self._nothing())
        contents = [selected(f"{request.user_id}-{rank}") for rank in range(request.count)]
        return crs_engine_pb2.RecommendContentsResponse(contents=contents)

    def _result(self, request: Any) -> crs_engine_pb2.BatchSelectContentsResult:
        if request.user_id == "stranger":
            error = crs_engine_pb2.RequestError(code=5, message="no placement 'x'", field="placement")
            return crs_engine_pb2.BatchSelectContentsResult(error=error)
        if request.user_id == "muted":
            selection = crs_engine_pb2.Selection(no_content=self._nothing())
        elif request.user_id == "void":
            selection = crs_engine_pb2.Selection()
        else:
            selection = crs_engine_pb2.Selection(content=selected(f"for {request.user_id}"))
        return crs_engine_pb2.BatchSelectContentsResult(selection=selection)

    def _nothing(self) -> crs_engine_pb2.NoContent:
        nothing = crs_engine_pb2.NoContent(reason=crs_engine_pb2.NO_CONTENT_REASON_MUTED, message="muted")
        nothing.until.FromDatetime(UNTIL)
        return nothing


class Tracker(tracker_pb2_grpc.EventTrackerServiceServicer):
    """Accepts everything but the tokens that are the name of a status."""

    def __init__(self) -> None:
        self.calls: list[list[tracker_pb2.Event]] = []
        self.failures: list[MeshError] = []

    async def TrackEvents(self, request: Any, context: Any) -> tracker_pb2.TrackEventsResponse:
        self.calls.append(list(request.events))
        if self.failures:
            raise self.failures.pop(0)
        return tracker_pb2.TrackEventsResponse(results=map(self._result, request.events))

    def _result(self, event: tracker_pb2.Event) -> tracker_pb2.EventResult:
        name = f"EVENT_STATUS_{event.impression_token.decode()}"
        if name not in tracker_pb2.EventStatus.keys():  # noqa: SIM118 an enum wrapper is no mapping
            return tracker_pb2.EventResult(status=tracker_pb2.EVENT_STATUS_ACCEPTED)
        return tracker_pb2.EventResult(status=tracker_pb2.EventStatus.Value(name), message=f"it is {name}")


class Mesh:
    """Both servicers behind one port, and a client."""

    def __init__(self, client: MeshClient, engine: Engine, tracker: Tracker) -> None:
        self.client = client
        self.engine = engine
        self.tracker = tracker


@asynccontextmanager
async def serving(engine: Engine, tracker: Tracker, port: int = 0) -> AsyncIterator[Server]:
    server = Server(ServerOptions(address=HostPort("127.0.0.1", port), grace_s=0.0), registry=CollectorRegistry())
    services = crs_engine_pb2.DESCRIPTOR.services_by_name, tracker_pb2.DESCRIPTOR.services_by_name
    server.add_service(
        services[0]["CrsEngineService"], crs_engine_pb2_grpc.add_CrsEngineServiceServicer_to_server, engine
    )
    server.add_service(
        services[1]["EventTrackerService"], tracker_pb2_grpc.add_EventTrackerServiceServicer_to_server, tracker
    )
    async with server:
        yield server


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    engine, tracker = Engine(), Tracker()
    async with serving(engine, tracker) as server:
        address = f"dns:///127.0.0.1:{server.port}"
        # No call waits for another one unless the test says so, and none is sent twice because the machine is slow.
        limits = ClientLimits(
            deadline_s=20.0,
            selects=CoalescingLimits(max_calls=1, max_wait_s=5.0),
            events=CoalescingLimits(max_batch=500, max_wait_s=5.0),
            hedge_selects_after_s=None,
            hedge_events_after_s=None,
        )
        async with MeshClient(address, address, limits=limits) as client:
            yield Mesh(client, engine, tracker)


class TestSelect:
    async def test_a_content_comes_with_all_that_an_app_needs(self, mesh: Mesh) -> None:
        assert await mesh.client.select("head", "u", context={"device": "tablet"}) == Selected(
            service="comics",
            content_id="for u",
            title="Volume 3",
            uri="app://comics/3",
            attributes={"genre": ("noir", "crime"), "price": 4.5},
            token=b"token of for u",
            impression_id=bytes(16),
            logic="new",
            variant="linucb",
            origin=Origin.POLICY,
        )

    async def test_an_empty_slot_says_why_and_until_when(self, mesh: Mesh) -> None:
        assert await mesh.client.select("head", "muted") == Nothing(Reason.MUTED, "muted", UNTIL)

    async def test_concurrent_calls_travel_together_and_each_gets_its_own_answer(self, mesh: Mesh) -> None:
        users = [f"u{number}" for number in range(200)]
        selections = await asyncio.gather(*(mesh.client.select("head", user) for user in users))
        assert [selection.content_id for selection in selections if isinstance(selection, Selected)] == [
            f"for {user}" for user in users
        ]
        assert sorted(len(batch) for batch in mesh.engine.batches) == [1, 7, 64, 64, 64]

    async def test_what_is_wrong_with_one_request_is_a_typed_error_of_that_one_alone(self, mesh: Mesh) -> None:
        wrong, right = await asyncio.gather(
            mesh.client.select("x", "stranger"), mesh.client.select("head", "u"), return_exceptions=True
        )
        assert isinstance(wrong, NotFound)
        assert (wrong.field, wrong.message) == ("placement", "no placement 'x'")
        assert isinstance(right, Selected)

    async def test_an_answer_without_content_and_reason_is_an_error_of_the_engine(self, mesh: Mesh) -> None:
        with pytest.raises(Internal, match="neither a content nor a reason"):
            await mesh.client.select("head", "void")

    async def test_an_engine_that_is_away_for_a_moment_is_asked_again(self, mesh: Mesh) -> None:
        mesh.engine.failures = [Unavailable("starting"), Unavailable("starting", retry_after_s=0.01)]
        assert isinstance(await mesh.client.select("head", "u"), Selected)
        assert len(mesh.engine.batches) == 3

    async def test_all_members_of_a_failed_call_are_tried_again(self, mesh: Mesh) -> None:
        mesh.engine.failures = [Unavailable("starting"), Unavailable("starting")]
        selections = await asyncio.gather(*(mesh.client.select("head", f"u{number}") for number in range(10)))
        assert all(isinstance(selection, Selected) for selection in selections)

    async def test_a_retry_that_would_come_too_late_is_not_waited_for(self, mesh: Mesh) -> None:
        mesh.engine.failures = [Unavailable("away", retry_after_s=60.0)]
        with pytest.raises(Unavailable) as away:
            await mesh.client.select("head", "u", deadline_s=30.0)
        assert len(mesh.engine.batches) == 1
        assert away.value.retry_after_s == 60.0

    async def test_what_can_never_succeed_is_not_tried_again(self, mesh: Mesh) -> None:
        mesh.engine.failures = [InvalidArgument("too long", field="user_id")]
        with pytest.raises(InvalidArgument) as refused:
            await mesh.client.select("head", "u")
        assert refused.value.field == "user_id"
        assert len(mesh.engine.batches) == 1

    async def test_a_slow_engine_costs_each_caller_no_more_than_its_own_deadline(self, mesh: Mesh) -> None:
        answer = asyncio.Event()
        mesh.engine.before = answer.wait
        patient = asyncio.create_task(mesh.client.select("head", "patient", deadline_s=60.0))
        with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
            await mesh.client.select("head", "hasty", deadline_s=0.05)
        answer.set()
        assert isinstance(await patient, Selected)

    async def test_a_request_too_large_to_travel_with_others_is_refused_here(self, mesh: Mesh) -> None:
        with pytest.raises(InvalidArgument, match="at most 32768"):
            await mesh.client.select("head", "u", context={"device": "x" * 40_000})
        assert mesh.engine.batches == []

    async def test_an_engine_that_starts_later_is_found_within_the_deadline(self) -> None:
        (port,) = ports.free(1)
        async with MeshClient(f"127.0.0.1:{port}", f"127.0.0.1:{port}") as client:
            # Which of the two depends on whether the connection is refused before the deadline or after it.
            with pytest.raises((Unavailable, DeadlineExceeded)):
                await client.select("head", "u", deadline_s=0.1)
            waiting = asyncio.create_task(client.select("head", "u", deadline_s=30.0))
            async with serving(Engine(), Tracker(), port):
                assert isinstance(await waiting, Selected)

    async def test_servers_that_hang_keep_nobody_waiting_while_others_answer(self) -> None:
        sick, well, tracker = Engine(), Engine(), Tracker()
        sick.before = asyncio.Event().wait
        limits = ClientLimits(deadline_s=10.0, hedge_selects_after_s=0.02)
        async with serving(sick, tracker) as one, serving(well, tracker) as another:
            target = f"ipv4:127.0.0.1:{one.port},127.0.0.1:{another.port}"
            async with MeshClient(target, target, limits=limits) as client:
                while not sick.batches:  # both are connected once it is asked
                    assert isinstance(await client.select("head", "first"), Selected)
                asked = len(sick.batches)
                selections = [await client.select("head", f"u{number}") for number in range(20)]
                ranked = [await client.recommend("head", "u", count=3) for _ in range(2)]
        assert all(isinstance(selection, Selected) for selection in selections)
        assert not any(isinstance(contents, Nothing) for contents in ranked)
        assert len(sick.batches) > asked

    async def test_a_closed_client_says_so(self, mesh: Mesh) -> None:
        arrived = asyncio.Event()

        async def hang() -> None:
            arrived.set()
            await asyncio.Event().wait()

        mesh.engine.before = hang
        under_way = asyncio.create_task(mesh.client.select("head", "u"))
        await arrived.wait()
        await mesh.client.close()
        with pytest.raises(FailedPrecondition, match="closed"):
            await under_way
        with pytest.raises(FailedPrecondition, match="closed"):
            await mesh.client.select("head", "u")


class TestRecommend:
    async def test_a_ranked_list_keeps_its_order(self, mesh: Mesh) -> None:
        contents = await mesh.client.recommend("head", "u", count=3)
        assert not isinstance(contents, Nothing)
        assert [content.content_id for content in contents] == ["u-0", "u-1", "u-2"]

    async def test_an_empty_list_says_why(self, mesh: Mesh) -> None:
        assert await mesh.client.recommend("head", "muted") == Nothing(Reason.MUTED, "muted", UNTIL)

    async def test_it_is_tried_again_too(self, mesh: Mesh) -> None:
        mesh.engine.failures = [Unavailable("starting")]
        assert await mesh.client.recommend("head", "u", count=1)


class TestTrack:
    async def test_each_kind_of_event_carries_the_selections_token(self, mesh: Mesh) -> None:
        selection = await mesh.client.select("head", "u")
        assert isinstance(selection, Selected)
        await mesh.client.track_shown(selection, at=UNTIL)
        await mesh.client.track_click(selection)
        await mesh.client.track_mute(selection.token)
        await mesh.client.track_target(selection, "purchase", weight=2.0)
        events = [event for call in mesh.tracker.calls for event in call]
        assert {event.impression_token for event in events} == {selection.token}
        assert [event.WhichOneof("kind") for event in events] == ["shown", "click", "mute", "target"]
        assert events[0].client_time.ToDatetime(UTC) == UNTIL
        assert not events[1].HasField("client_time")
        assert (events[3].target.name, events[3].target.weight) == ("purchase", 2.0)

    async def test_concurrent_events_travel_together(self, mesh: Mesh) -> None:
        await asyncio.gather(*(mesh.client.track_click(b"t%d" % number) for number in range(100)))
        assert sorted(len(call) for call in mesh.tracker.calls) == [1, 99]  # they may overtake each other

    async def test_any_number_of_events_is_split_into_calls_that_the_tracker_takes(self, mesh: Mesh) -> None:
        assert await mesh.client.track(shown(b"t") for _ in range(1200)) == [None] * 1200
        assert sorted(len(call) for call in mesh.tracker.calls) == [200, 500, 500]

    async def test_a_tracker_that_asks_for_time_gets_it(self, mesh: Mesh) -> None:
        mesh.tracker.failures = [Unavailable("kafka is away", retry_after_s=0.2)]
        began_s = time.monotonic()
        await mesh.client.track_shown(b"t")
        assert time.monotonic() - began_s >= 0.2
        assert len(mesh.tracker.calls) == 2

    async def test_events_that_are_not_stored_in_time_are_handed_back_as_unavailable(self, mesh: Mesh) -> None:
        mesh.tracker.failures = [Unavailable("kafka is away", retry_after_s=60.0)]
        outcomes = await mesh.client.track([shown(b"a"), click(b"a")])
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            ("INVALID", InvalidArgument),
            ("TOKEN_MALFORMED", InvalidArgument),
            ("TOKEN_FORGED", Unauthenticated),
            ("TOKEN_UNKNOWN_KEY", Unauthenticated),
            ("TOKEN_EXPIRED", FailedPrecondition),
            ("UNKNOWN_PLACEMENT", NotFound),
            ("UNKNOWN_TARGET", NotFound),
        ],
    )
    async def test_a_refused_event_is_a_typed_error(self, mesh: Mesh, status: str, kind: type[MeshError]) -> None:
        with pytest.raises(kind) as refused:
            await mesh.client.track_click(status.encode())
        assert refused.value.metadata == {"status": f"EVENT_STATUS_{status}"}
        assert len(mesh.tracker.calls) == 1

    async def test_of_several_events_each_has_its_own_outcome_in_its_place(self, mesh: Mesh) -> None:
        outcomes = await mesh.client.track([shown(b"t"), click(b"TOKEN_EXPIRED"), mute(b"t"), target(b"t", "purchase")])
        assert [type(outcome) for outcome in outcomes] == [type(None), FailedPrecondition, type(None), type(None)]

    async def test_no_events_are_no_call(self, mesh: Mesh) -> None:
        assert await mesh.client.track([]) == []
        assert mesh.tracker.calls == []
