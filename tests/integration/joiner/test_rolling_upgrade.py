"""Joiners of two releases, one of which is from before late reactions waited in Redis, by turns on one partition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from banditmesh.runtime.redis import RedisClient
from services.joiner.events import read_reaction
from services.joiner.incoming import judge
from services.joiner.ledger import MARKS, REACTIONS, Late, LateWritten, Ledger, Lifetimes, Mark, Seen, StoredReaction
from tests.integration.joiner.harness import click, decision
from tests.support.joiner_before_late import OlderJoiner

T, WINDOW, P, LOG = 1_700_000_000_000, 1000, 3, 77
NONE_WRITTEN = LateWritten(LOG, 0)
ONE, TWO = (1).to_bytes(16, "big"), (2).to_bytes(16, "big")
CLICK = click(decision(1)).SerializeToString()
LATE = StoredReaction(ONE, "click", 20, T + WINDOW + 5, True, CLICK, closed=True)


@pytest.fixture
async def store(fresh_redis: str) -> AsyncIterator[RedisClient]:
    here = RedisClient(fresh_redis, timeout_s=2.0)
    yield here
    await here.close()


@pytest.fixture
def newer(store: RedisClient) -> Ledger:
    return Ledger(store, P, Lifetimes(reaction_ms=60_000, mark_ms=60_000))


@pytest.fixture
def older(store: RedisClient) -> OlderJoiner:
    return OlderJoiner(store, P)


async def test_what_waits_stays_while_an_older_joiner_has_the_partition_and_goes_out_after_it(
    newer: Ledger, older: OlderJoiner
) -> None:
    reactions, marks = newer.checkpoint(REACTIONS, LOG), newer.checkpoint(MARKS, LOG)
    await newer.store(reactions, reactions.following(20, T + WINDOW + 1), [])
    await newer.close(marks, [(ONE, Mark(4, T))], WINDOW, NONE_WRITTEN)
    await newer.store(reactions, reactions.following(21, T + WINDOW + 5), [LATE])

    for checkpoint in (reactions, marks):
        await checkpoint.read()
    early = replace(LATE, impression_id=TWO, offset=21, time_ms=T + WINDOW + 6, was_late=False, closed=False)
    await older.store(reactions, reactions.following(22, T + 3 * WINDOW), [early])
    assert await older.close(marks, [(TWO, Mark(5, T + WINDOW))], WINDOW) == 1

    for checkpoint in (reactions, marks):
        await checkpoint.read()
    found = await newer.close(marks, [(TWO, Mark(5, T + WINDOW))], WINDOW, NONE_WRITTEN)
    assert found.late == [Late(LOG, LATE.offset, LATE.time_ms, LATE.value)]
    assert found.progress == reactions.progress
    assert [each.earlier for each in found.closings] == [Mark(5, T + WINDOW)]  # closed once, whoever did it
    assert [each.offset for each in found.closings[0].reactions] == [21]


async def test_what_an_older_joiner_has_sent_is_not_sent_again(newer: Ledger, older: OlderJoiner) -> None:
    reactions, marks = newer.checkpoint(REACTIONS, LOG), newer.checkpoint(MARKS, LOG)
    await older.store(reactions, reactions.following(20, T + WINDOW + 1), [])
    await reactions.read()
    assert await older.close(marks, [(ONE, Mark(4, T))], WINDOW) == 1
    await older.store(reactions, reactions.following(21, T + WINDOW + 5), [LATE])

    for checkpoint in (reactions, marks):
        await checkpoint.read()
    ((mark, first),) = await newer.look([(ONE, "click")])
    assert (mark, first) == (Mark(4, T), replace(LATE, closed=False))
    retry = read_reaction(30, LATE.time_ms + 9, LATE.value)
    assert retry is not None
    assert judge([retry], [Seen(mark, first)], WINDOW) == []
    assert (await newer.close(marks, [], WINDOW, NONE_WRITTEN)).late == []
