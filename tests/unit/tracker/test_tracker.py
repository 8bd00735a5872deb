"""One request: what goes to which topic, what is answered when it does not get there, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.errors import InvalidArgument, Unavailable
from banditmesh.runtime.kafka.producer import Record
from banditmesh.runtime.kafka.sizes import LEAST_BYTES, MessageSizes
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.token import KeyRing
from services.tracker.intake import Accepted, Intake, Refused
from services.tracker.metrics import TrackerMetrics
from services.tracker.tracker import MAX_EVENTS, Tracker

MESH = parse_mesh("{services: {comics: {logics: [new]}}, placements: {head: {sources: [comics/new]}}}")
KEYS = KeyRing.parse("7:" + "0a" * 32)


class FakeLog:
    """Stores records in a list, or is away."""

    def __init__(self) -> None:
        self.sent: list[list[Record]] = []
        self.timeout_s: float | None = None
        self.away = False
        self.sizes = MessageSizes()

    async def send_many(self, records: Sequence[Record], *, timeout_s: float | None = None) -> object:
        self.timeout_s = timeout_s
        if self.away:
            raise Unavailable("away", retry_after_s=0.5)
        self.sent.append(list(records))
        return None


class Case:
    """A tracker with what it stands on."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = FakeLog()
        self.registry = CollectorRegistry()
        intake = Intake(MESH, KEYS, Topics.named("t-"), self.clock)
        self.tracker = Tracker(intake, self.log, TrackerMetrics(self.registry), self.clock)

    def event(self, user: str = "u", features: int = 0, **kind: object) -> tracker_pb2.Event:
        decision = events_pb2.Decision(
            impression_id=bytes(16),
            user_id=user,
            placement="head",
            decided_at_ms=int(self.clock.now_s() * 1000),
            features=events_pb2.Features(ids=range(features)),
        )
        return tracker_pb2.Event(impression_token=KEYS.sign(decision), **(kind or {"shown": tracker_pb2.Shown()}))

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"banditmesh_tracker_{name}", labels) or 0.0


@pytest.fixture
def case() -> Case:
    return Case()


async def test_all_records_of_a_request_go_to_kafka_together(case: Case) -> None:
    events = [case.event("a"), case.event("b", click=events_pb2.Click()), case.event("c", mute=events_pb2.Mute())]
    await case.tracker.track(events)
    (records,) = case.log.sent
    assert [(record.topic, record.key, record.partition) for record in records] == [
        ("t-impressions", b"a", None),
        ("t-reactions", b"b", None),
        ("t-reactions", b"c", None),
    ]


async def test_a_bad_event_does_not_keep_the_good_ones_back(case: Case) -> None:
    results = await case.tracker.track([case.event("a"), tracker_pb2.Event(), case.event("b")])
    assert [type(result) for result in results] == [Accepted, Refused, Accepted]
    assert [record.key for record in case.log.sent[0]] == [b"a", b"b"]


async def test_an_event_that_its_topic_does_not_take_is_refused_and_the_others_are_stored(case: Case) -> None:
    case.log.sizes.refused("t-impressions", LEAST_BYTES, 1)
    results = await case.tracker.track([case.event("a"), case.event("b", features=LEAST_BYTES // 4)])
    assert isinstance(results[0], Accepted)
    assert isinstance(results[1], Refused)
    assert results[1].status == tracker_pb2.EVENT_STATUS_INVALID
    assert "more than topic t-impressions takes" in results[1].message
    assert [record.topic for record in case.log.sent[0]] == ["t-impressions"]


async def test_a_request_of_bad_events_alone_is_answered_while_kafka_is_away(case: Case) -> None:
    case.log.away = True
    (result,) = await case.tracker.track([tracker_pb2.Event()])
    assert isinstance(result, Refused)


async def test_what_kafka_does_not_acknowledge_is_not_accepted(case: Case) -> None:
    case.log.away = True
    with pytest.raises(Unavailable) as away:
        await case.tracker.track([case.event(), tracker_pb2.Event()])
    assert away.value.retry_after_s == 0.5
    assert case.counted("unacknowledged_events_total") == 1
    assert case.counted("events_total", kind="shown", status="accepted") == 0


async def test_kafka_gets_as_long_as_the_caller_can_wait(case: Case) -> None:
    await case.tracker.track([case.event()], timeout_s=0.7)
    assert case.log.timeout_s == 0.7


@pytest.mark.parametrize("count", [0, MAX_EVENTS + 1])
async def test_no_events_and_too_many_are_refused_with_the_field_and_the_count(case: Case, count: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await case.tracker.track([tracker_pb2.Event()] * count)
    assert (refused.value.field, refused.value.value) == ("events", count)
    assert case.log.sent == []


async def test_a_thousand_events_are_taken(case: Case) -> None:
    results = await case.tracker.track([case.event()] * MAX_EVENTS)
    assert len(results) == len(case.log.sent[0]) == MAX_EVENTS


async def test_events_are_counted_by_kind_and_status(case: Case) -> None:
    await case.tracker.track([case.event(), case.event(), case.event(click=events_pb2.Click()), tracker_pb2.Event()])
    assert case.counted("events_total", kind="shown", status="accepted") == 2
    assert case.counted("events_total", kind="click", status="accepted") == 1
    assert case.counted("events_total", kind="none", status="token_malformed") == 1


async def test_tokens_are_counted_by_key_and_fault_but_never_by_a_number_that_a_stranger_chose(case: Case) -> None:
    forged = case.event()
    forged.impression_token = forged.impression_token[:-1] + bytes([forged.impression_token[-1] ^ 1])
    foreign = case.event()
    foreign.impression_token = bytes((1, 200)) + foreign.impression_token[2:]
    await case.tracker.track([case.event(), forged, foreign])
    assert case.counted("tokens_total", key="7", result="ok") == 1
    assert case.counted("tokens_total", key="7", result="forged") == 1
    assert case.counted("tokens_total", key="unknown", result="unknown_key") == 1


async def test_the_time_until_the_acknowledgement_is_measured(case: Case) -> None:
    await case.tracker.track([case.event()])
    assert case.counted("kafka_ack_seconds_count") == 1
