"""What becomes of an event: a record, or a refusal that says why."""

from __future__ import annotations

import math

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.token import KeyRing, TokenFault
from services.tracker.intake import CASES, Accepted, Intake, Refused

MESH = parse_mesh(
    """
    services: {comics: {logics: [new-volume]}}
    placements:
      head: {sources: [comics/new-volume], rewards: {targets: {purchase: 3.0, share: 2.0}}}
      foot: {sources: [comics/new-volume]}
    token: {max_age: 1h}
    """
)
KEYS = KeyRing.parse("1:" + "0a" * 32)
CLOCK = ManualClock()
TOPICS = Topics.named("t-")
INTAKE = Intake(MESH, KEYS, TOPICS, CLOCK)
ID = bytes(range(16))


def decision(placement: str = "head", age_s: float = 1.0) -> events_pb2.Decision:
    return events_pb2.Decision(
        impression_id=ID,
        user_id="ユーザー-1",
        placement=placement,
        service="comics",
        content_id="c-1",
        propensity=0.25,
        features=events_pb2.Features(ids=[1, 2, 3]),
        decided_at_ms=int((CLOCK.now_s() - age_s) * 1000),
    )


def event(token: bytes | None = None, **kind: object) -> tracker_pb2.Event:
    return tracker_pb2.Event(impression_token=KEYS.sign(decision()) if token is None else token, **kind)


def shown(token: bytes | None = None) -> tracker_pb2.Event:
    return event(token, shown=tracker_pb2.Shown())


def accepted(given: tracker_pb2.Event) -> Accepted:
    result = INTAKE.check(given)
    assert isinstance(result, Accepted), result
    return result


def refused(given: tracker_pb2.Event) -> Refused:
    result = INTAKE.check(given)
    assert isinstance(result, Refused), result
    return result


def test_an_impression_carries_the_whole_decision_and_its_schema_version() -> None:
    result = accepted(shown())
    impression = events_pb2.Impression.FromString(result.record.value)
    assert result.record.topic == TOPICS.impressions
    assert impression == events_pb2.Impression(schema_version=1, decision=decision())


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("click", events_pb2.Click()),
        ("mute", events_pb2.Mute()),
        ("target", events_pb2.TargetAction(name="purchase", weight=2.5)),
    ],
)
def test_a_reaction_carries_its_kind_and_the_decision_without_features(kind: str, value: object) -> None:
    result = accepted(event(**{kind: value}))
    expected = events_pb2.Reaction(schema_version=1, decision=decision(), **{kind: value})
    expected.decision.ClearField("features")
    assert result.record.topic == TOPICS.reactions
    assert events_pb2.Reaction.FromString(result.record.value) == expected


def test_records_are_keyed_by_the_user_id_in_utf8() -> None:
    assert accepted(shown()).record.key == "ユーザー-1".encode()


def test_the_impression_id_is_answered_even_when_the_event_is_not_valid() -> None:
    assert refused(event()).impression_id == ID


def test_an_event_without_a_kind_is_invalid_and_told_which_there_are() -> None:
    result = refused(event())
    assert result.status == tracker_pb2.EVENT_STATUS_INVALID
    assert result.message == f"kind: the event has none; set one of {', '.join(CASES)}"


def test_a_kind_of_a_newer_contract_is_invalid_here() -> None:
    newer = tracker_pb2.Event.FromString(event().SerializeToString() + b"\xa2\x06\x00")  # field 100: an empty message
    assert refused(newer).status == tracker_pb2.EVENT_STATUS_INVALID


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, -math.inf, 1.1e9])
def test_a_weight_must_be_a_number_that_the_joiner_takes(weight: float) -> None:
    result = refused(event(target=events_pb2.TargetAction(name="share", weight=weight)))
    assert result.status == tracker_pb2.EVENT_STATUS_INVALID
    assert result.message.startswith(f"target.weight = {weight:g}: must be a number from 0 to 1e+09")


@pytest.mark.parametrize(
    ("placement", "name", "listed"),
    [("head", "purchace", "purchase, share"), ("foot", "purchase", "none")],
)
def test_a_target_action_must_be_one_that_the_placement_lists(placement: str, name: str, listed: str) -> None:
    token = KEYS.sign(decision(placement))
    result = refused(event(token, target=events_pb2.TargetAction(name=name)))
    assert result.status == tracker_pb2.EVENT_STATUS_UNKNOWN_TARGET
    assert repr(name) in result.message
    assert f"rewards.targets of placement {placement!r} has {listed}" in result.message


def test_of_many_target_actions_the_first_are_named() -> None:
    targets = ", ".join(f"action-{number:04d}: 1.0" for number in range(5000))
    mesh = parse_mesh(
        "services: {news: {logics: [top]}}\n"
        f"placements: {{head: {{sources: [news/top], rewards: {{targets: {{{targets}}}}}}}}}\n"
    )
    token = KEYS.sign(decision("head"))
    intake = Intake(mesh, KEYS, Topics.named(), CLOCK)
    result = intake.check(event(token, target=events_pb2.TargetAction(name="purchase")))
    assert isinstance(result, Refused)
    assert "has action-0000, action-0001" in result.message
    assert result.message.endswith("and 4990 more")


def test_a_placement_that_has_left_mesh_yaml_is_unknown() -> None:
    result = refused(shown(KEYS.sign(decision("attic"))))
    assert result.status == tracker_pb2.EVENT_STATUS_UNKNOWN_PLACEMENT
    assert "'attic'" in result.message


def test_the_time_of_the_device_is_kept_in_milliseconds() -> None:
    given = shown()
    given.client_time.FromMilliseconds(1_234_567_890_123)
    assert events_pb2.Impression.FromString(accepted(given).record.value).client_time_ms == 1_234_567_890_123


def test_a_device_with_a_wrong_clock_still_counts() -> None:
    given = shown()
    given.client_time.FromMilliseconds(int(CLOCK.now_s() * 1000) + 40 * 365 * 86_400_000)
    assert accepted(given)


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(-1, 0), (0, -1), (0, 1_000_000_000), (253_402_300_800, 0), (1 << 62, 0)]
)
def test_a_time_that_is_no_timestamp_is_invalid(seconds: int, nanos: int) -> None:
    given = shown()
    given.client_time.seconds, given.client_time.nanos = seconds, nanos
    result = refused(given)
    assert result.status == tracker_pb2.EVENT_STATUS_INVALID
    assert f"client_time = {seconds} s and {nanos} ns" in result.message


@pytest.mark.parametrize(
    ("token", "fault", "status", "key"),
    [
        (b"", TokenFault.MALFORMED, tracker_pb2.EVENT_STATUS_TOKEN_MALFORMED, None),
        (b"\x01\x01" + bytes(40), TokenFault.FORGED, tracker_pb2.EVENT_STATUS_TOKEN_FORGED, 1),
        (
            KeyRing.parse("9:" + "0b" * 32).sign(decision()),
            TokenFault.UNKNOWN_KEY,
            tracker_pb2.EVENT_STATUS_TOKEN_UNKNOWN_KEY,
            None,
        ),
        (KEYS.sign(decision(age_s=3601)), TokenFault.EXPIRED, tracker_pb2.EVENT_STATUS_TOKEN_EXPIRED, 1),
        (KEYS.sign(decision(age_s=-61)), TokenFault.EXPIRED, tracker_pb2.EVENT_STATUS_TOKEN_EXPIRED, 1),
    ],
)
def test_each_fault_of_a_token_has_a_status_of_its_own(token: bytes, fault: TokenFault, status: int, key: int) -> None:
    result = refused(shown(token))
    assert (result.fault, result.status, result.token_key, result.impression_id) == (fault, status, key, b"")
    assert fault.value in result.message
