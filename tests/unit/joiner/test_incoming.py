"""Which reactions are new, which are late, and what they do to users' states."""

from __future__ import annotations

from banditmesh.bandits.hashing import content_key
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.reactions import KINDS
from banditmesh.runtime.user_record import CLICKS, TARGETS, Position, UserRecord
from services.joiner.events import ReadReaction
from services.joiner.incoming import advance, judge
from services.joiner.ledger import Mark, Seen, StoredReaction

T = 1_700_000_000_000
LOG = 5
EMPTY = UserRecord.empty()
NOTHING = Seen(None, None)
WINDOW = 5_000
CLOSED = Mark(offset=7, time_ms=T)


def arrival(
    offset: int, *, kind: str = "click", part: str = "", impression: int = 1, user: str = "ann"
) -> ReadReaction:
    decision = events_pb2.Decision(
        impression_id=impression.to_bytes(16, "big"), user_id=user, service="films", content_id=f"film-{impression}"
    )
    return ReadReaction(offset, T + offset * 1000, KINDS.get(kind), part, 1.0, decision, b"")


def first_copy(offset: int) -> StoredReaction:
    return StoredReaction(bytes(16), "click", offset, T, False, b"")


def judged(arrivals: list[ReadReaction], seen: list[Seen]) -> list[tuple[int, bool, bool]]:
    """Of each new reaction: its offset, whether it is late, whether its impression was closed."""
    return [(read.offset, stored.was_late, stored.closed) for read, stored in judge(arrivals, seen, WINDOW)]


def test_a_reaction_that_nobody_has_seen_is_new() -> None:
    assert judged([arrival(10)], [NOTHING]) == [(10, False, False)]


def test_the_same_kind_to_the_same_impression_is_a_duplicate_in_redis_or_in_the_batch() -> None:
    assert judged([arrival(10)], [Seen(None, first_copy(4))]) == []
    assert judged([arrival(10), arrival(11)], [NOTHING, NOTHING]) == [(10, False, False)]


def test_another_kind_another_part_or_another_impression_is_no_duplicate() -> None:
    arrivals = [
        arrival(10),
        arrival(11, kind="mute"),
        arrival(12, impression=2),
        arrival(13, kind="target", part="a"),
        arrival(14, kind="target", part="b"),
    ]
    assert len(judged(arrivals, [NOTHING] * 5)) == 5


def test_two_reactions_of_kinds_that_are_not_known_are_both_kept_and_a_retry_is_not() -> None:
    arrivals = [arrival(at, kind="of tomorrow", part=part) for at, part in ((10, "a"), (11, "b"), (12, "a"))]
    assert [at for at, *_ in judged(arrivals, [NOTHING] * 3)] == [10, 11]


def test_a_reaction_is_late_when_its_impression_was_closed_without_it() -> None:
    assert judged([arrival(10)], [Seen(CLOSED, None)]) == [(10, True, True)]


def test_a_reaction_in_time_to_a_closed_impression_has_been_counted_and_is_not_late() -> None:
    assert judged([arrival(2)], [Seen(CLOSED, None)]) == [(2, False, True)]


def test_a_reaction_that_has_been_through_before_is_not_late_because_of_that() -> None:
    assert judged([arrival(10)], [Seen(None, first_copy(10))]) == [(10, False, False)]
    assert judged([arrival(10)], [Seen(CLOSED, first_copy(10))]) == [(10, False, True)]


def test_when_the_log_is_read_again_from_further_back_the_earlier_copy_is_the_first() -> None:
    assert judged([arrival(3)], [Seen(None, first_copy(10))]) == [(3, False, False)]


def applied(*reactions: ReadReaction, to: UserRecord = EMPTY) -> UserRecord:
    """Ann's record after these reactions."""
    return advance({"ann": to}, reactions, LOG).get("ann", to)


def test_reactions_are_applied_in_order_with_their_content_and_broker_time() -> None:
    record = applied(arrival(10, impression=1), arrival(11, impression=2), arrival(12, kind="mute"))
    assert record.applied("reactions", LOG) == 12
    assert [record.count(name) for name in ("feedback", "clicks", "mutes")] == [3, 2, 1]
    clicks = record.entries(CLICKS)
    assert clicks["content"].tolist() == [content_key("films", "film-2"), content_key("films", "film-1")]
    assert clicks["time_s"].tolist() == [T // 1000 + 11, T // 1000 + 10]


def test_a_target_action_counts_as_feedback() -> None:
    record = applied(arrival(10, kind="target", part="purchase"))
    assert (record.count("feedback"), record.count("clicks"), len(record.entries(TARGETS))) == (1, 0, 1)


def test_a_kind_that_is_not_known_changes_nothing_but_the_position() -> None:
    assert applied(arrival(10, kind="of tomorrow")) == EMPTY.moved(Position("reactions", LOG, 10))


def test_applying_again_changes_nothing() -> None:
    both = [arrival(10), arrival(11, impression=2)]
    assert advance({"ann": applied(*both)}, both, LOG) == {}


def test_the_same_offset_of_another_log_is_another_reaction() -> None:
    once = applied(arrival(10))
    assert advance({"ann": once}, [arrival(10)], LOG + 1)["ann"].count("clicks") == 2


def test_users_do_not_get_into_each_others_records() -> None:
    changed = advance({"ann": EMPTY, "bob": EMPTY}, [arrival(10), arrival(11, user="bob", kind="mute")], LOG)
    assert (changed["ann"].count("mutes"), changed["bob"].count("mutes")) == (0, 1)
    assert advance({"ann": EMPTY}, [arrival(11, user="bob")], LOG) == {}
