"""Reading the records of the input topics."""

from __future__ import annotations

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.deadletters import Unreadable
from services.joiner.events import HANDLERS, Reaction, Tick, read_impression, read_reaction

DECISION = events_pb2.Decision(impression_id=bytes(16), user_id="ann", placement="home")


def reaction(**fields: object) -> bytes:
    return events_pb2.Reaction(**{"schema_version": 1, "decision": DECISION, **fields}).SerializeToString()  # type: ignore[arg-type]


def test_each_kind_of_reaction_has_a_handler() -> None:
    cases = {field.name for field in events_pb2.Reaction.DESCRIPTOR.oneofs_by_name["kind"].fields}
    assert HANDLERS.keys() == cases


def test_reactions_are_told_apart_by_kind_and_target_actions_by_name() -> None:
    target = events_pb2.TargetAction(name="purchase", weight=2.0)
    assert read_reaction(reaction(click=events_pb2.Click())) == Reaction("click", DECISION)
    assert read_reaction(reaction(mute=events_pb2.Mute())) == Reaction("mute", DECISION)
    assert read_reaction(reaction(target=target)) == Reaction("target:purchase", DECISION, 2.0)


def test_a_weight_of_zero_means_one() -> None:
    read = read_reaction(reaction(target=events_pb2.TargetAction(name="purchase")))
    assert isinstance(read, Reaction)
    assert read.weight == 1.0


def test_a_tick_needs_no_decision() -> None:
    assert read_reaction(reaction(decision=None, tick=events_pb2.Tick())) == Tick()


def test_a_later_schema_version_is_read_as_far_as_it_is_known() -> None:
    unknown_field = b"\xfa\x3e\x05later"  # field 1007
    assert read_reaction(reaction(schema_version=9, click=events_pb2.Click()) + unknown_field) == Reaction(
        "click", DECISION
    )
    impression = events_pb2.Impression(schema_version=9, decision=DECISION).SerializeToString()
    assert read_impression(impression + unknown_field) == DECISION


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff", "not_a_protobuf"),
        (b"", "no_schema_version"),
        (reaction(schema_version=0, click=events_pb2.Click()), "no_schema_version"),
        (reaction(schema_version=2), "unknown_kind"),
        (reaction(decision=None, click=events_pb2.Click()), "no_decision"),
        (reaction(decision=events_pb2.Decision(user_id="ann"), click=events_pb2.Click()), "bad_impression_id"),
        (reaction(decision=events_pb2.Decision(impression_id=bytes(16)), click=events_pb2.Click()), "no_user_id"),
        (reaction(target=events_pb2.TargetAction()), "no_target_name"),
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
