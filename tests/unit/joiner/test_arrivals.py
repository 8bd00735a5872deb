"""Which reactions are new, which are late, and what they do to users' states."""

from __future__ import annotations

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.user_record import CLICKS, TARGETS, UserRecord
from services.joiner.arrivals import Arrival, New, advance, judge
from services.joiner.events import Reaction
from services.joiner.ledger import Kept, Mark, Seen

T = 1_700_000_000_000
LOG = 5
EMPTY = UserRecord.empty()
NOTHING = Seen(None, None)
CLOSED = Mark(offset=7, time_ms=T)


def arrival(offset: int, *, kind: str = "click", impression: int = 1, user: str = "ann") -> Arrival:
    decision = events_pb2.Decision(
        impression_id=impression.to_bytes(16, "big"), user_id=user, service="films", content_id=f"film-{impression}"
    )
    return Arrival(offset, T + offset * 1000, Reaction(kind, decision), b"")


def first_copy(offset: int) -> Kept:
    return Kept(offset, T, False, b"")


def test_a_reaction_that_nobody_has_seen_is_new() -> None:
    assert judge([arrival(10)], [NOTHING]) == [New(arrival(10), late=False, settled=False)]


def test_the_same_kind_to_the_same_impression_is_a_duplicate_in_redis_or_in_the_batch() -> None:
    assert judge([arrival(10)], [Seen(None, first_copy(4))]) == []
    assert [each.arrival.offset for each in judge([arrival(10), arrival(11)], [NOTHING, NOTHING])] == [10]


def test_another_kind_or_another_impression_is_no_duplicate() -> None:
    arrivals = [arrival(10), arrival(11, kind="mute"), arrival(12, impression=2)]
    assert len(judge(arrivals, [NOTHING] * 3)) == 3


def test_a_reaction_is_late_when_its_impression_was_closed_without_it() -> None:
    assert judge([arrival(10)], [Seen(CLOSED, None)]) == [New(arrival(10), late=True, settled=True)]


def test_a_reaction_that_has_been_through_before_is_not_late_because_of_that() -> None:
    assert judge([arrival(10)], [Seen(None, first_copy(10))]) == [New(arrival(10), late=False, settled=False)]
    assert judge([arrival(10)], [Seen(CLOSED, first_copy(10))]) == [New(arrival(10), late=False, settled=True)]


def test_when_the_log_is_read_again_from_further_back_the_earlier_copy_is_the_first() -> None:
    assert judge([arrival(3)], [Seen(None, first_copy(10))]) == [New(arrival(3), late=False, settled=False)]


def new(*arrivals: Arrival, late: bool = False) -> list[New]:
    return [New(each, late=late, settled=late) for each in arrivals]


def applied(*new: New, to: UserRecord = EMPTY) -> UserRecord:
    """Ann's record after these reactions."""
    return advance({"ann": to}, new, LOG).get("ann", to)


def test_reactions_are_applied_in_order_with_their_content_and_broker_time() -> None:
    record = applied(*new(arrival(10, impression=1), arrival(11, impression=2), arrival(12, kind="mute")))
    assert record.applied("reactions", LOG) == 12
    assert [record.count(name) for name in ("feedback", "clicks", "mutes")] == [3, 2, 1]
    clicks = record.entries(CLICKS)
    assert clicks["content"].tolist() == [content_key("films", "film-2"), content_key("films", "film-1")]
    assert clicks["time_s"].tolist() == [T // 1000 + 11, T // 1000 + 10]


def test_a_target_action_counts_as_feedback_and_a_late_reaction_counts_like_any_other() -> None:
    record = applied(*new(arrival(10, kind="target:purchase")))
    assert (record.count("feedback"), record.count("clicks"), len(record.entries(TARGETS))) == (1, 0, 1)
    assert applied(*new(arrival(10), late=True)).count("clicks") == 1


def test_applying_again_changes_nothing() -> None:
    both = new(arrival(10), arrival(11, impression=2))
    assert advance({"ann": applied(*both)}, both, LOG) == {}


def test_the_same_offset_of_another_log_is_another_reaction() -> None:
    once = applied(*new(arrival(10)))
    assert advance({"ann": once}, new(arrival(10)), LOG + 1)["ann"].count("clicks") == 2


def test_users_do_not_get_into_each_others_records() -> None:
    changed = advance({"ann": EMPTY, "bob": EMPTY}, new(arrival(10), arrival(11, user="bob", kind="mute")), LOG)
    assert (changed["ann"].count("mutes"), changed["bob"].count("mutes")) == (0, 1)
