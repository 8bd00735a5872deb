"""Reading the records of the input topics."""

from __future__ import annotations

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.deadletters import Unreadable
from services.joiner.events import MAX_INPUT_BYTES, ReadReaction, read_impression
from services.joiner.events import read_reaction as read_at

DECISION = events_pb2.Decision(impression_id=bytes(16), user_id="ann", placement="home")


def reaction(**fields: object) -> bytes:
    return events_pb2.Reaction(**{"schema_version": 1, "decision": DECISION, **fields}).SerializeToString()  # type: ignore[arg-type]


def read_reaction(value: bytes) -> ReadReaction | None:
    return read_at(7, 1000, value)


def test_reactions_are_told_apart_by_kind_and_target_actions_by_name() -> None:
    target = events_pb2.TargetAction(name="purchase", weight=2.0)
    read = [
        read_reaction(reaction(click=events_pb2.Click())),
        read_reaction(reaction(mute=events_pb2.Mute())),
        read_reaction(reaction(target=target)),
    ]
    assert [each and (each.key, each.amount, each.decision) for each in read] == [
        ("click", 1.0, DECISION),
        ("mute", 1.0, DECISION),
        ("target:purchase", 2.0, DECISION),
    ]


def test_a_weight_of_zero_means_one() -> None:
    read = read_reaction(reaction(target=events_pb2.TargetAction(name="purchase")))
    assert read is not None
    assert read.amount == 1.0


def test_a_tick_needs_no_decision() -> None:
    assert read_reaction(reaction(decision=None, tick=events_pb2.Tick())) is None


OF_TOMORROW = b"\xfa\x3e\x05later"  # field 1007


def test_a_later_schema_version_is_read_as_far_as_it_is_known() -> None:
    read = read_reaction(reaction(schema_version=9, click=events_pb2.Click()) + OF_TOMORROW)
    assert read is not None
    assert (read.key, read.decision) == ("click", DECISION)
    impression = events_pb2.Impression(schema_version=9, decision=DECISION).SerializeToString()
    assert read_impression(impression + OF_TOMORROW) == DECISION


def test_a_reaction_of_a_kind_that_a_later_release_knows_is_read_and_keeps_its_value() -> None:
    value = reaction(schema_version=2) + OF_TOMORROW
    read = read_reaction(value)
    assert read is not None
    assert (read.kind, read.key[0], read.value) == (None, "?", value)


def test_a_retry_of_a_kind_that_is_not_known_has_the_same_key_and_another_reaction_has_not() -> None:
    first, retry, other = (
        read_reaction(reaction(schema_version=2, client_time_ms=time_ms) + kind)
        for time_ms, kind in ((1, OF_TOMORROW), (2, OF_TOMORROW), (1, OF_TOMORROW[:-1] + b"!"))
    )
    assert first is not None
    assert retry is not None
    assert other is not None
    assert first.key == retry.key != other.key


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff", "not_a_protobuf"),
        (b"", "no_schema_version"),
        (reaction(schema_version=0, click=events_pb2.Click()), "no_schema_version"),
        (reaction(schema_version=2), "no_kind"),
        (reaction(decision=None, click=events_pb2.Click()), "no_decision"),
        (reaction(decision=events_pb2.Decision(user_id="ann"), click=events_pb2.Click()), "bad_impression_id"),
        (reaction(decision=events_pb2.Decision(impression_id=bytes(16)), click=events_pb2.Click()), "no_user_id"),
        (reaction(click=events_pb2.Click()) + b"\xfa\x3e\x80\x80\x04" + bytes(MAX_INPUT_BYTES), "too_large"),
        (reaction(target=events_pb2.TargetAction()), "no_target_name"),
        (reaction(target=events_pb2.TargetAction(name="t" * 65)), "bad_target_name"),
        (reaction(target=events_pb2.TargetAction(name="t", weight=1.1e9)), "bad_weight"),
        (reaction(target=events_pb2.TargetAction(name="t", weight=-1.0)), "bad_weight"),
        (reaction(target=events_pb2.TargetAction(name="t", weight=float("inf"))), "bad_weight"),
        (reaction(target=events_pb2.TargetAction(name="t", weight=float("nan"))), "bad_weight"),
    ],
)
def test_a_reaction_that_cannot_be_used_says_why(value: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as error:
        read_reaction(value)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff", "not_a_protobuf"),
        (events_pb2.Impression(decision=DECISION).SerializeToString(), "no_schema_version"),
        (events_pb2.Impression(schema_version=1).SerializeToString(), "no_decision"),
    ],
)
def test_an_impression_that_cannot_be_used_says_why(value: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as error:
        read_impression(value)
    assert error.value.reason == reason
