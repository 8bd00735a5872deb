"""The joiner's scripts on a real Valkey, one node and a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.user_record import ANY_LOG, Position, UserRecord
from services.joiner.checkpoint import Checkpoint, Progress, ProgressMoved
from services.joiner.ledger import (
    LATE_AT_ONCE,
    MARKS,
    REACTIONS,
    SHOWN,
    Closed,
    Closing,
    ImpressionClosed,
    Late,
    LateWritten,
    Ledger,
    Lifetimes,
    Mark,
    Seen,
    StoredReaction,
)
from services.joiner.users import Users

T = 1_700_000_000_000
WINDOW = 1000
P = 3
LOG = 77
NONE_WRITTEN = LateWritten(LOG, 0)
ONE, TWO = (1).to_bytes(16, "big"), (2).to_bytes(16, "big")


@pytest.fixture(params=["one node", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RedisClient]:
    url: str = request.getfixturevalue("fresh_redis" if request.param == "one node" else "fresh_redis_cluster")
    here = RedisClient(url, timeout_s=2.0)
    yield here
    await here.close()


@pytest.fixture
def ledger(store: RedisClient) -> Ledger:
    return Ledger(store, P, Lifetimes(reaction_ms=60_000, mark_ms=60_000))


async def checkpoint(ledger: Ledger, stream: str = REACTIONS, log: int = LOG) -> Checkpoint:
    """A checkpoint as its owner has it when the partition is opened."""
    here = ledger.checkpoint(stream, log)
    await here.read()
    return here


def reaction(impression_id: bytes, offset: int, *, key: str = "click", closed: bool = False) -> StoredReaction:
    return StoredReaction(impression_id, key, offset, T + offset, False, b"\x00:\xff", closed)


async def read_up_to(ledger: Ledger, offset: int, watermark_ms: int, *reactions: StoredReaction) -> Checkpoint:
    """The checkpoint after reactions were stored by an owner who has just opened the partition."""
    here = await checkpoint(ledger)
    await ledger.store(here, here.following(offset, watermark_ms), reactions)
    return here


async def closed(ledger: Ledger, *impressions: tuple[bytes, Mark]) -> list[Closing]:
    """What is closed by an owner who has just opened the partition."""
    return list((await ledger.close(await checkpoint(ledger, MARKS), impressions, WINDOW, NONE_WRITTEN)).closings)


async def seen(ledger: Ledger, impression_id: bytes, key: str = "click") -> Seen:
    """What is known of one reaction."""
    return (await ledger.look([(impression_id, key)]))[0]


async def test_reactions_and_progress_are_stored_together_and_found_again(ledger: Ledger) -> None:
    assert await ledger.progress() is None
    await read_up_to(ledger, 11, T, reaction(ONE, 10))
    assert await ledger.progress() == Progress(11, T, LOG)
    assert await ledger.look([(ONE, "click"), (ONE, "mute"), (TWO, "click")]) == [
        Seen(None, reaction(ONE, 10)),
        Seen(None, None),
        Seen(None, None),
    ]


async def test_an_owner_who_knows_another_progress_than_redis_stores_nothing(ledger: Ledger) -> None:
    nothing, older = await checkpoint(ledger), await checkpoint(ledger)
    await older.move(older.following(10, T))
    await read_up_to(ledger, 11, T)
    for here in (nothing, older):
        with pytest.raises(ProgressMoved):
            await here.verify()
        with pytest.raises(ProgressMoved):
            await ledger.store(here, here.following(99, T + 99), [reaction(ONE, 98)])
        with pytest.raises(ProgressMoved):
            await here.move(here.following(99, T + 99))
    assert await ledger.progress() == Progress(11, T, LOG)
    assert await seen(ledger, ONE) == Seen(None, None)


async def test_progress_of_another_log_means_nothing_and_is_replaced(ledger: Ledger) -> None:
    await read_up_to(ledger, 500, T + 50)
    here = await checkpoint(ledger, log=LOG + 1)
    assert (here.progress, here.another_log) == (None, True)
    await ledger.store(here, here.following(3, T + 1), [])
    assert await ledger.progress() == Progress(3, T + 1, LOG + 1)


async def test_progress_of_a_release_that_knew_no_logs_is_taken_for_this_log(
    ledger: Ledger, store: RedisClient
) -> None:
    await store.client.set(keys.join_progress(P), b"7:1234", px=60_000)
    here = await checkpoint(ledger)
    assert here.progress == Progress(7, 1234, ANY_LOG)
    await ledger.store(here, here.following(8, 1235), [])
    assert await ledger.progress() == Progress(8, 1235, LOG)


async def test_a_reaction_to_an_impression_that_was_closed_meanwhile_stores_nothing(ledger: Ledger) -> None:
    here = await read_up_to(ledger, 5, T + WINDOW + 1)
    await closed(ledger, (ONE, Mark(0, T)))
    following = here.following(7, T + WINDOW + 2)
    with pytest.raises(ImpressionClosed):
        await ledger.store(here, following, [reaction(TWO, 5), reaction(ONE, 6)])
    assert await ledger.progress() == Progress(5, T + WINDOW + 1, LOG)
    assert await seen(ledger, TWO) == Seen(None, None)
    await ledger.store(here, following, [reaction(TWO, 5), reaction(ONE, 6, closed=True)])
    assert await seen(ledger, ONE) == Seen(Mark(0, T), reaction(ONE, 6))


async def test_of_two_copies_the_earlier_one_is_kept_whatever_their_order(ledger: Ledger) -> None:
    await read_up_to(ledger, 11, T, reaction(ONE, 10))
    await read_up_to(ledger, 12, T, reaction(ONE, 11))
    assert (await seen(ledger, ONE)).first == reaction(ONE, 10)
    await read_up_to(ledger, 13, T, reaction(ONE, 9))  # 9 < 10 as numbers, not as texts
    assert (await seen(ledger, ONE)).first == reaction(ONE, 9)


async def test_impressions_are_closed_from_the_first_on_as_far_as_the_watermark_allows(ledger: Ledger) -> None:
    await read_up_to(ledger, 11, T + WINDOW + 5, reaction(ONE, 1), reaction(ONE, 2, key="mute"))
    marks = await checkpoint(ledger, MARKS)
    wanted = [(ONE, Mark(0, T + 4)), (TWO, Mark(1, T + 5))]
    progress, (first,), *_ = await ledger.close(marks, wanted, WINDOW, NONE_WRITTEN)
    assert progress == Progress(11, T + WINDOW + 5, LOG)
    assert first.earlier is None
    assert {each.key: each.offset for each in first.reactions} == {"click": 1, "mute": 2}
    assert (await seen(ledger, TWO)).closed is None
    assert marks.progress == (await checkpoint(ledger, MARKS)).progress == Progress(1, T + 4, LOG)


async def test_without_progress_nothing_is_closed(ledger: Ledger) -> None:
    marks = await checkpoint(ledger, MARKS)
    assert await ledger.close(marks, [(ONE, Mark(0, 0))], WINDOW, NONE_WRITTEN) == Closed(None, [], [])
    assert (await checkpoint(ledger, MARKS)).progress is None


async def test_whoever_does_not_know_how_far_the_marks_are_closes_nothing(ledger: Ledger) -> None:
    await read_up_to(ledger, 11, T + WINDOW + 5)
    older = await checkpoint(ledger, MARKS)
    await closed(ledger, (ONE, Mark(4, T)))
    with pytest.raises(ProgressMoved):
        await ledger.close(older, [(TWO, Mark(5, T))], WINDOW, NONE_WRITTEN)
    assert (await seen(ledger, TWO)).closed is None


@pytest.mark.parametrize(
    ("written", "closes"),
    [(LateWritten(LOG, 11), True), (LateWritten(LOG, 12), False), (LateWritten(LOG + 1, 12), True)],
)
async def test_nothing_is_closed_before_reactions_are_back_up_to_where_late_ones_are_written(
    ledger: Ledger, written: LateWritten, closes: bool
) -> None:
    await read_up_to(ledger, 11, T + WINDOW + 5)
    found = await ledger.close(await checkpoint(ledger, MARKS), [(ONE, Mark(4, T))], WINDOW, written)
    assert bool(found.closings) == closes


async def test_late_reactions_wait_in_their_order_until_they_are_forgotten(ledger: Ledger) -> None:
    late = [Late(LOG, offset, T + offset, b"\x00:\xff") for offset in (9, 10, 100)]
    stored = [replace(reaction(ONE, each.offset, key=str(each.offset), closed=True), was_late=True) for each in late]
    await read_up_to(ledger, 101, T + WINDOW + 5, *reversed(stored))
    marks = await checkpoint(ledger, MARKS)
    for waiting in (late, late[2:]):
        assert (await ledger.close(marks, [], WINDOW, NONE_WRITTEN)).late == waiting
        await ledger.forget_late(late[:2])
    again = await checkpoint(ledger, MARKS)
    await ledger.mark_again(again, again.following(8, T), [], [late[0]])
    assert (await ledger.close(again, [], WINDOW, NONE_WRITTEN)).late == [late[0], late[2]]


async def test_nothing_is_closed_while_more_late_reactions_wait_than_are_taken_at_once(ledger: Ledger) -> None:
    many = [
        replace(reaction(TWO, offset, key=str(offset), closed=True), was_late=True) for offset in range(LATE_AT_ONCE)
    ]
    await read_up_to(ledger, LATE_AT_ONCE, T + WINDOW + 5, *many)
    found = await ledger.close(await checkpoint(ledger, MARKS), [(ONE, Mark(4, T))], WINDOW, NONE_WRITTEN)
    assert (len(found.late), found.closings) == (LATE_AT_ONCE, [])


async def test_the_mark_of_the_first_copy_stays(ledger: Ledger) -> None:
    await read_up_to(ledger, 11, T + WINDOW + 5)
    both = [(ONE, Mark(4, T)), (ONE, Mark(6, T + 1))]
    assert [each.earlier for each in await closed(ledger, *both)] == [None, Mark(4, T)]
    assert [each.earlier for each in await closed(ledger, *both)] == [Mark(4, T), Mark(4, T)]


async def test_lost_marks_are_written_again_and_those_that_stand_stay(ledger: Ledger) -> None:
    await read_up_to(ledger, 11, T + WINDOW + 5, reaction(TWO, 1))
    await closed(ledger, (ONE, Mark(4, T)))
    marks = await checkpoint(ledger, MARKS)
    fewer = [(ONE, Mark(6, T + 1), 0), (TWO, Mark(7, T + 2), 0)]
    assert not await ledger.mark_again(marks, marks.following(8, T + 2), fewer)
    assert (await seen(ledger, TWO)).closed is None
    again = [(ONE, Mark(6, T + 1), 0), (TWO, Mark(7, T + 2), 1)]
    assert await ledger.mark_again(marks, marks.following(8, T + 2), again)
    assert (await seen(ledger, ONE)).closed == Mark(4, T)
    assert (await seen(ledger, TWO)).closed == Mark(7, T + 2)
    assert await ledger.unmatched(T + WINDOW, 10) == {}
    assert (await checkpoint(ledger, MARKS)).progress == Progress(8, T + 2, LOG)


async def test_an_impression_whose_reactions_redis_has_lost_stays_open_until_they_are_read_again(
    ledger: Ledger, store: RedisClient
) -> None:
    await read_up_to(ledger, 3, T + 9 * WINDOW, reaction(ONE, 1), reaction(TWO, 2))
    await store.client.delete(keys.reactions(P, TWO))
    marks = await checkpoint(ledger, MARKS)
    due = [(ONE, Mark(5, T)), (TWO, Mark(6, T)), ((3).to_bytes(16, "big"), Mark(7, T))]

    found = await ledger.close(marks, due, WINDOW, NONE_WRITTEN)
    assert (found.closings, found.lost) == ([Closing(None, [reaction(ONE, 1)])], 1)
    assert ((await checkpoint(ledger)).progress, (await checkpoint(ledger)).lost_since_ms) == (None, T - WINDOW)
    assert (await ledger.close(marks, due[1:], WINDOW, NONE_WRITTEN)).closings == []

    await read_up_to(ledger, 3, T + 9 * WINDOW, reaction(TWO, 2))
    found = await ledger.close(marks, due[1:], WINDOW, NONE_WRITTEN)
    assert (found.closings, found.lost) == ([Closing(None, [reaction(TWO, 2)]), Closing(None, ())], 0)


async def test_what_is_lost_and_not_in_the_log_any_more_is_waited_for_once(ledger: Ledger, store: RedisClient) -> None:
    await read_up_to(ledger, 3, T + 9 * WINDOW, reaction(ONE, 1))
    await store.client.delete(keys.reactions(P, ONE))
    assert await closed(ledger, (ONE, Mark(5, T))) == []
    await read_up_to(ledger, 3, T + 9 * WINDOW)
    assert await closed(ledger, (ONE, Mark(5, T))) == [Closing(None, ())]


async def test_an_impression_that_does_not_come_leaves_its_reactions_unmatched(ledger: Ledger) -> None:
    await read_up_to(ledger, 11, T + WINDOW + 50, reaction(ONE, 1), reaction(TWO, 2))
    await closed(ledger, (ONE, Mark(0, T)))
    assert await ledger.unmatched(T + 2, 10) == {}
    assert await ledger.unmatched(T + 3, 10) == {TWO: [reaction(TWO, 2)]}
    await ledger.forget_unmatched([TWO])
    assert await ledger.unmatched(T + 3, 10) == {}
    assert (await seen(ledger, TWO)).first == reaction(TWO, 2)


async def test_a_reaction_to_a_closed_impression_is_not_unmatched(ledger: Ledger) -> None:
    await read_up_to(ledger, 5, T + WINDOW + 1)
    await closed(ledger, (ONE, Mark(0, T)))
    await read_up_to(ledger, 6, T + WINDOW + 2, reaction(ONE, 5, closed=True))
    assert await ledger.unmatched(T + WINDOW, 10) == {}


async def test_every_key_has_a_time_to_live(ledger: Ledger, store: RedisClient) -> None:
    late = replace(reaction(ONE, 3, key="mute", closed=True), was_late=True)
    await read_up_to(ledger, 11, T + WINDOW + 50, reaction(ONE, 1), reaction(TWO, 2), late)
    await closed(ledger, (ONE, Mark(0, T)))
    shown = await checkpoint(ledger, SHOWN)
    await shown.move(shown.following(1, T))
    for name in (
        *(keys.join_progress(P, stream) for stream in (REACTIONS, MARKS, SHOWN)),
        keys.unmatched(P),
        keys.late(P),
        keys.closed(P, ONE),
        keys.reactions(P, ONE),
        keys.reactions(P, TWO),
    ):
        assert await store.client.pttl(name) > 0


async def test_a_user_record_is_replaced_only_where_the_one_that_was_read_still_stands(store: RedisClient) -> None:
    users = Users(store)
    names = [f"user {{{i}}}" for i in range(20)]
    found = await users.read(names)
    assert await users.replace(found, {name: UserRecord.empty().counted(clicks=7) for name in names}) == []
    assert await users.replace(found, {name: UserRecord.empty().counted(clicks=3) for name in names}) == names
    assert {each.record.count("clicks") for each in (await users.read(names)).values()} == {7}


async def test_two_streams_that_change_one_record_lose_nothing_of_each_other(store: RedisClient) -> None:
    users = Users(store)
    by_reactions, by_shown = await users.read(["ann"]), await users.read(["ann"])
    clicked = by_reactions["ann"].record.counted(clicks=1).moved(Position("reactions", 5, 3))
    assert await users.replace(by_reactions, {"ann": clicked}) == []
    assert await users.replace(by_shown, {"ann": by_shown["ann"].record.shown(T // 1000, 1, 2)}) == ["ann"]
    again = await users.read(["ann"])
    assert await users.replace(again, {"ann": again["ann"].record.shown(T // 1000, 1, 2)}) == []
    record = (await users.read(["ann"]))["ann"].record
    assert (record.count("clicks"), record.count("shown"), record.applied("reactions", 5)) == (1, 1, 3)


async def test_no_record_is_written_over_the_loss_of_what_came_before_it(store: RedisClient) -> None:
    users = Users(store)
    clicked = UserRecord.empty().counted(clicks=1).moved(Position("reactions", 5, 512))

    async def lost() -> None:
        raise ProgressMoved("Redis has lost what came before")

    with pytest.raises(ProgressMoved):
        await users.change(["ann"], lambda found: {"ann": clicked}, lost)
    assert (await users.read(["ann"]))["ann"].digest == ""


async def test_a_value_that_is_no_record_begins_anew(store: RedisClient) -> None:
    users = Users(store)
    await store.client.set(keys.state(keys.user_tag("ann")), b"torn", px=60_000)
    found = await users.read(["ann"])
    assert await users.replace(found, {"ann": found["ann"].record.counted(clicks=1)}) == []
    assert (await users.read(["ann"]))["ann"].record.count("clicks") == 1


async def test_a_value_that_is_not_even_a_text_begins_anew(store: RedisClient) -> None:
    users = Users(store)
    await store.client.rpush(keys.state(keys.user_tag("ann")), "of somebody else")
    found = await users.read(["ann"])
    assert await users.replace(found, {"ann": found["ann"].record.counted(clicks=1)}) == []
    assert (await users.read(["ann"]))["ann"].record.count("clicks") == 1
