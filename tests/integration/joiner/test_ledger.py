"""The joiner's scripts on a real Valkey, one node and a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisStore
from banditmesh.runtime.user_record import Position, UserRecord
from services.joiner.ledger import (
    ImpressionClosed,
    Kept,
    Ledger,
    Lifetimes,
    Mark,
    Progress,
    ProgressMoved,
    Seen,
    Store,
)
from services.joiner.users import Users

T = 1_700_000_000_000
WINDOW = 1000
P = 3
ONE, TWO = (1).to_bytes(16, "big"), (2).to_bytes(16, "big")


@pytest.fixture(params=["one node", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RedisStore]:
    url: str = request.getfixturevalue("fresh_redis" if request.param == "one node" else "fresh_redis_cluster")
    here = RedisStore(url, timeout_s=2.0)
    yield here
    await here.close()


@pytest.fixture
async def ledger(store: RedisStore) -> Ledger:
    return Ledger(store, P, Lifetimes(reaction_ms=60_000, mark_ms=60_000))


def reaction(impression_id: bytes, offset: int, *, kind: str = "click", settled: bool = False) -> Store:
    return Store(impression_id, kind, Kept(offset, T + offset, False, b"\x00:\xff"), settled)


async def test_reactions_and_progress_are_stored_together_and_found_again(ledger: Ledger) -> None:
    assert await ledger.progress() is None
    stored = reaction(ONE, 10)
    await ledger.store(None, Progress(11, T), [stored])
    assert await ledger.progress() == Progress(11, T)
    assert await ledger.look([(ONE, "click"), (ONE, "mute"), (TWO, "click")]) == [
        Seen(None, stored.kept),
        Seen(None, None),
        Seen(None, None),
    ]


async def test_a_reader_with_another_progress_than_redis_stores_nothing(ledger: Ledger) -> None:
    await ledger.store(None, Progress(11, T), [])
    for expected in (None, Progress(10, T), Progress(11, T + 1)):
        with pytest.raises(ProgressMoved):
            await ledger.store(expected, Progress(99, T + 99), [reaction(ONE, 98)])
    assert await ledger.progress() == Progress(11, T)
    assert await ledger.look([(ONE, "click")]) == [Seen(None, None)]


async def test_a_reaction_to_an_impression_that_was_closed_meanwhile_stores_nothing(ledger: Ledger) -> None:
    await ledger.store(None, Progress(5, T + WINDOW + 1), [])
    await ledger.close([(ONE, Mark(0, T))], WINDOW)
    with pytest.raises(ImpressionClosed):
        await ledger.store(
            Progress(5, T + WINDOW + 1), Progress(7, T + WINDOW + 2), [reaction(TWO, 5), reaction(ONE, 6)]
        )
    assert await ledger.progress() == Progress(5, T + WINDOW + 1)
    assert await ledger.look([(TWO, "click")]) == [Seen(None, None)]
    await ledger.store(
        Progress(5, T + WINDOW + 1),
        Progress(7, T + WINDOW + 2),
        [reaction(TWO, 5), reaction(ONE, 6, settled=True)],
    )
    assert await ledger.look([(ONE, "click")]) == [Seen(Mark(0, T), reaction(ONE, 6).kept)]


async def test_of_two_copies_the_earlier_one_is_kept_whatever_their_order(ledger: Ledger) -> None:
    await ledger.store(None, Progress(11, T), [reaction(ONE, 10)])
    await ledger.store(Progress(11, T), Progress(12, T), [reaction(ONE, 11)])
    assert (await ledger.look([(ONE, "click")]))[0].first == reaction(ONE, 10).kept
    await ledger.store(Progress(12, T), Progress(13, T), [reaction(ONE, 9)])  # 9 < 10 as numbers, not as texts
    assert (await ledger.look([(ONE, "click")]))[0].first == reaction(ONE, 9).kept


async def test_impressions_are_closed_from_the_first_on_as_far_as_the_watermark_allows(ledger: Ledger) -> None:
    await ledger.store(None, Progress(11, T + WINDOW + 5), [reaction(ONE, 1), reaction(ONE, 2, kind="mute")])
    progress, closed = await ledger.close([(ONE, Mark(0, T + 4)), (TWO, Mark(1, T + 5))], WINDOW)
    assert progress == Progress(11, T + WINDOW + 5)
    ((earlier, reactions),) = [(each.earlier, each.reactions) for each in closed]
    assert earlier is None
    assert {kind: kept.offset for kind, kept in reactions.items()} == {"click": 1, "mute": 2}
    assert (await ledger.look([(TWO, "click")]))[0].closed is None


async def test_without_progress_nothing_is_closed(ledger: Ledger) -> None:
    assert await ledger.close([(ONE, Mark(0, 0))], WINDOW) == (None, [])


async def test_the_mark_of_the_first_copy_stays(ledger: Ledger) -> None:
    await ledger.store(None, Progress(11, T + WINDOW + 5), [])
    _, closed = await ledger.close([(ONE, Mark(4, T)), (ONE, Mark(6, T + 1))], WINDOW)
    assert [each.earlier for each in closed] == [None, Mark(4, T)]
    _, again = await ledger.close([(ONE, Mark(4, T)), (ONE, Mark(6, T + 1))], WINDOW)
    assert [each.earlier for each in again] == [Mark(4, T), Mark(4, T)]


async def test_an_impression_that_does_not_come_leaves_its_reactions_unmatched(ledger: Ledger) -> None:
    await ledger.store(None, Progress(11, T + WINDOW + 50), [reaction(ONE, 1), reaction(TWO, 2)])
    await ledger.close([(ONE, Mark(0, T))], WINDOW)
    assert await ledger.unmatched(T + 2, 10) == {}
    assert await ledger.unmatched(T + 3, 10) == {TWO: {"click": reaction(TWO, 2).kept}}
    await ledger.forget_unmatched([TWO])
    assert await ledger.unmatched(T + 3, 10) == {}
    assert (await ledger.look([(TWO, "click")]))[0].first == reaction(TWO, 2).kept


async def test_a_reaction_to_a_closed_impression_is_not_unmatched(ledger: Ledger) -> None:
    progress = Progress(5, T + WINDOW + 1)
    await ledger.store(None, progress, [])
    await ledger.close([(ONE, Mark(0, T))], WINDOW)
    await ledger.store(progress, Progress(6, T + WINDOW + 2), [reaction(ONE, 5, settled=True)])
    assert await ledger.unmatched(T + WINDOW, 10) == {}


async def test_every_key_has_a_time_to_live(ledger: Ledger, store: RedisStore) -> None:
    await ledger.store(None, Progress(11, T + WINDOW + 50), [reaction(ONE, 1), reaction(TWO, 2)])
    await ledger.close([(ONE, Mark(0, T))], WINDOW)
    for name in (
        keys.join_progress(P),
        keys.unmatched(P),
        keys.closed(P, ONE),
        keys.reactions(P, ONE),
        keys.reactions(P, TWO),
    ):
        assert await store.client.pttl(name) > 0


async def test_a_user_record_is_replaced_only_where_the_one_that_was_read_still_stands(store: RedisStore) -> None:
    users = Users(store)
    names = [f"user {{{i}}}" for i in range(20)]
    found = await users.read(names)
    assert await users.replace(found, {name: UserRecord.empty().counted(clicks=7) for name in names}) == 0
    assert await users.replace(found, {name: UserRecord.empty().counted(clicks=3) for name in names}) == 20
    assert {each.record.count("clicks") for each in (await users.read(names)).values()} == {7}


async def test_two_streams_that_change_one_record_lose_nothing_of_each_other(store: RedisStore) -> None:
    users = Users(store)
    by_reactions, by_shown = await users.read(["ann"]), await users.read(["ann"])
    clicked = by_reactions["ann"].record.counted(clicks=1).moved(Position("reactions", 5, 3))
    assert await users.replace(by_reactions, {"ann": clicked}) == 0
    assert await users.replace(by_shown, {"ann": by_shown["ann"].record.shown(T // 1000, 1, 2)}) == 1
    again = await users.read(["ann"])
    assert await users.replace(again, {"ann": again["ann"].record.shown(T // 1000, 1, 2)}) == 0
    record = (await users.read(["ann"]))["ann"].record
    assert (record.count("clicks"), record.count("shown"), record.applied("reactions", 5)) == (1, 1, 3)


async def test_a_value_that_is_no_record_begins_anew(store: RedisStore) -> None:
    users = Users(store)
    await store.client.set(keys.state(keys.user_tag("ann")), b"torn", px=60_000)
    found = await users.read(["ann"])
    assert await users.replace(found, {"ann": found["ann"].record.counted(clicks=1)}) == 0
    assert (await users.read(["ann"]))["ann"].record.count("clicks") == 1
