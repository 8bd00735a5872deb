"""The oracle, by hand: what an example must be, and that each thing that may be wrong with one is found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.torture import oracle
from banditmesh.torture.evidence import Evidence, Reacted, Shown
from banditmesh.torture.oracle import Finding, expected, judge, not_in_the_log
from banditmesh.torture.rules import Rules

RULES = Rules(window_ms=1000, dwell=0.25, targets={"purchase": 3.0, "signup": 3.0})
PLACED = {"home": RULES}
SHOWN_MS = 50_000
AT = Shown(0, 7, SHOWN_MS, "ada", "home")
IDENTITY = bytes(15) + b"\x01"


def reacted(*, offset: int = 0, after_ms: int = 10, amount: float = 1.0) -> Reacted:
    return Reacted(offset, SHOWN_MS + after_ms, amount)


@pytest.mark.parametrize(
    ("reactions", "outcome", "target", "reward"),
    [
        ({}, "none", "", 0.5),
        ({("click", ""): reacted()}, "click", "", 1.0),
        ({("click", ""): reacted(after_ms=-300)}, "click", "", 1.0),
        ({("click", ""): reacted(after_ms=1000)}, "click", "", 1.0),
        ({("click", ""): reacted(after_ms=1001)}, "none", "", 0.5),
        ({("click", ""): reacted(), ("mute", ""): reacted(after_ms=20)}, "mute", "", 0.0),
        ({("click", ""): reacted(), ("mute", ""): reacted(after_ms=2000)}, "click", "", 1.0),
        ({("target", "purchase"): reacted(amount=2.0), ("click", ""): reacted()}, "target", "purchase", 6.0),
        ({("target", "purchase"): reacted(), ("target", "signup"): reacted()}, "target", "purchase", 3.0),
        ({("target", "purchase"): reacted(amount=1e6)}, "target", "purchase", 30.0),
        ({("target", "unlisted"): reacted(), ("click", ""): reacted()}, "click", "", 1.0),
        ({("dwell", "0"): reacted(amount=2.0), ("dwell", "1"): reacted(amount=4.0)}, "dwell", "", 1.5),
    ],
)
def test_what_an_example_must_be(
    reactions: dict[tuple[str, str], Reacted], outcome: str, target: str, reward: float
) -> None:
    found = expected(AT, reactions, RULES)
    assert (found.outcome, found.target, found.reward) == (outcome, target, pytest.approx(reward))


def test_the_placements_own_precedence_decides() -> None:
    both = {("click", ""): reacted(), ("mute", ""): reacted()}
    assert expected(AT, both, Rules(1000, precedence=("click", "mute", "target", "dwell"))).outcome == "click"


def decision(number: int, user: str = "ada") -> events_pb2.Decision:
    return events_pb2.Decision(impression_id=number.to_bytes(16, "big"), user_id=user, placement="home")


def reaction(number: int, **kind: object) -> bytes:
    return events_pb2.Reaction(schema_version=1, decision=decision(number), **kind).SerializeToString()  # type: ignore[arg-type]


def example(number: int, *, offset: int, user: str = "ada", **changes: object) -> bytes:
    joined = {
        "decision": decision(number, user),
        "outcome": events_pb2.OUTCOME_NONE,
        "reward": 0.5,
        "impression_time_ms": SHOWN_MS + number,
        **changes,
    }
    return events_pb2.Example(
        schema_version=1,
        source=events_pb2.Source(partition=0, offset=offset, log=9),
        joined=events_pb2.JoinedImpression(**joined),  # type: ignore[arg-type]
    ).SerializeToString()


def evidence(n: int = 3) -> Evidence:
    """Impressions 0 … n-1 of one user, the first clicked in time and muted too late, and nothing else."""
    found = Evidence()
    for number in range(n):
        impression = events_pb2.Impression(schema_version=1, decision=decision(number))
        found.impression(0, number, SHOWN_MS + number, impression.SerializeToString())
    found.reaction(0, 0, SHOWN_MS + 100, reaction(0, click=events_pb2.Click()))
    found.reaction(0, 1, SHOWN_MS + 5000, reaction(0, mute=events_pb2.Mute()))
    found.late_reaction(0, 0, reaction(0, mute=events_pb2.Mute()))
    return found


CLICKED = {
    "outcome": events_pb2.OUTCOME_CLICK,
    "reward": 1.0,
    "reaction_time_ms": SHOWN_MS + 100,
    "reactions": [events_pb2.OUTCOME_CLICK],
}


def whole(n: int = 3) -> list[bytes]:
    """The examples as they must be."""
    return [example(0, offset=0, **CLICKED), *(example(number, offset=number) for number in range(1, n))]


def found(examples: Sequence[bytes], given: Evidence | None = None) -> list[Finding]:
    given = given or evidence()
    for offset, value in enumerate(examples):
        given.example(0, offset, value)
    return list(judge(given, PLACED))


def kinds(findings: Sequence[Finding]) -> set[str]:
    return {each.kind for each in findings}


def test_nothing_is_found_where_everything_is_as_it_must_be() -> None:
    assert found(whole()) == []


@pytest.mark.parametrize(
    ("doctored", "kind"),
    [
        (whole()[:2], oracle.MISSING),
        ([*whole(), whole()[2]], oracle.DUPLICATED),
        ([*whole(), example(77, offset=77)], oracle.UNEXPECTED),
        ([example(0, offset=0, **{**CLICKED, "outcome": events_pb2.OUTCOME_MUTE}), *whole()[1:]], oracle.OUTCOME),
        ([example(0, offset=0, **{**CLICKED, "reactions": []}), *whole()[1:]], oracle.REACTION),
        ([example(0, offset=0, **{**CLICKED, "reward": 0.9}), *whole()[1:]], oracle.REWARD),
        ([example(0, offset=0, **{**CLICKED, "reaction_time_ms": 1}), *whole()[1:]], oracle.TIMES),
        ([example(0, offset=0, **{**CLICKED, "impression_time_ms": 1}), *whole()[1:]], oracle.TIMES),
        ([whole()[0], whole()[2], whole()[1]], oracle.ORDER),
        ([*whole(), b"\xff\xffpoison"], oracle.SILENT),
    ],
)
def test_each_thing_that_may_be_wrong_is_found(doctored: list[bytes], kind: str) -> None:
    assert kind in kinds(found(doctored))


def test_a_late_reaction_that_stands_nowhere_is_found() -> None:
    given = evidence()
    given.late.clear()
    assert kinds(found(whole(), given)) == {oracle.REACTION}


def test_a_late_reaction_that_stands_there_twice_is_found() -> None:
    given = evidence()
    given.late_reaction(0, 1, reaction(0, mute=events_pb2.Mute()))
    assert kinds(found(whole(), given)) == {oracle.TWICE}


def test_examples_of_a_user_in_two_partitions_are_found() -> None:
    given = evidence()
    given.example(1, 0, whole()[0])
    assert kinds(found(whole()[1:], given)) == {oracle.ORDER}


def test_of_an_impression_whose_reactions_were_lost_with_the_log_only_its_example_is_asked_for() -> None:
    given, lost = evidence(), {decision(0).impression_id}
    for offset, value in enumerate([example(0, offset=0, **{**CLICKED, "reward": 0.9}), *whole()[1:]]):
        given.example(0, offset, value)
    assert list(judge(given, PLACED, lost)) == []
    given.example(0, 3, whole()[0])
    assert kinds(list(judge(given, PLACED, lost))) >= {oracle.DUPLICATED}


def test_of_another_log_offsets_may_be_lower() -> None:
    given = evidence(1)
    given.example(0, 0, example(0, offset=50, **CLICKED))
    impression = events_pb2.Impression(schema_version=1, decision=decision(1))
    given.impression(0, 60, SHOWN_MS + 1, impression.SerializeToString())
    other = events_pb2.Example.FromString(example(1, offset=3))
    other.source.log = 10
    given.example(0, 1, other.SerializeToString())
    assert list(judge(given, PLACED)) == []


def test_what_was_acknowledged_and_is_not_in_the_log_is_found() -> None:
    promised: list[tuple[bytes, tuple[str, str] | None]] = [
        (decision(0).impression_id, None),
        (decision(0).impression_id, ("click", "")),
        (decision(0).impression_id, ("target", "purchase")),
        (decision(9).impression_id, None),
    ]
    assert [each.what[-1:] for each in not_in_the_log(evidence(), promised)] == ["e", "9"]


def test_a_second_copy_counts_for_nothing() -> None:
    given = evidence()
    given.impression(
        0, 9, SHOWN_MS + 900, events_pb2.Impression(schema_version=1, decision=decision(0)).SerializeToString()
    )
    given.reaction(0, 9, SHOWN_MS + 9000, reaction(0, click=events_pb2.Click()))
    assert found(whole(), given) == []


def test_an_unreadable_record_with_a_dead_letter_is_accounted_for() -> None:
    given = evidence()
    given.reaction(2, 5, SHOWN_MS, b"\xff\xffpoison")
    letter = events_pb2.DeadLetter(schema_version=1, topic="reactions", partition=2, offset=5)
    given.dead_letter(letter.SerializeToString())
    assert found(whole(), given) == []


def test_a_reaction_of_a_newer_kind_is_neither_poison_nor_a_reaction() -> None:
    given = evidence()
    newer = events_pb2.Reaction(schema_version=2, decision=decision(1)).SerializeToString() + b"\xa2\x06\x03new"
    given.reaction(0, 12, SHOWN_MS, newer)
    assert found(whole(), given) == []
    assert given.unknown == [(0, 12)]


def test_an_impression_waits_until_its_example_has_come_in_whatever_order() -> None:
    given = evidence()
    assert len(given.awaited) == 3
    for offset, value in enumerate(whole()):
        given.example(0, offset, value)
    given.example(0, 9, example(8, offset=8))
    given.impression(
        0, 8, SHOWN_MS + 8, events_pb2.Impression(schema_version=1, decision=decision(8)).SerializeToString()
    )
    assert not given.awaited
