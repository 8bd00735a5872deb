"""Who visits when, and what they would do: the order and the reactions of the real ratings."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from banditmesh.client import MeshClient, click, mute, shown
from banditmesh.demo.movielens import Ratings
from banditmesh.selection import Nothing, Selected

CLICK_FROM = 4.0
MUTE_UP_TO = 2.0
DEADLINE_S = 60.0
"""Visitors of a demo on a small machine are more patient than an app: they wait for a service that was killed."""
VISITS_AT_ONCE = 256
"""Visits under way at most. One person's visits never overlap: nobody sees two first screens at once."""

React = Literal["click", "mute", "none"]


@dataclass(frozen=True)
class Truth:
    """What each person thinks of each film that the person rated."""

    ratings: dict[tuple[str, str], float]

    @classmethod
    def of(cls, ratings: Ratings) -> Truth:
        """Read the truth off the ratings."""
        users, items = ratings.users, ratings.items
        rows = zip(ratings.user.tolist(), ratings.item.tolist(), ratings.rating.tolist(), strict=True)
        return cls({(users[user], items[item]): rating for user, item, rating in rows})

    def reaction(self, user: str, item: str) -> React:
        """Return ``click`` for a rating of 4 or more, ``mute`` for 2 or less, ``none`` for 3 or no rating."""
        rating = self.ratings.get((user, item))
        if rating is None or MUTE_UP_TO < rating < CLICK_FROM:
            return "none"
        return "click" if rating >= CLICK_FROM else "mute"


def visits(ratings: Ratings, known: NDArray[np.bool_], wanted: int) -> list[str]:
    """Return who visits, in order: one visit a rating, evenly thinned out to about the wanted number, or repeated up
    to it.

    Args:
        ratings: In the order of their timestamps.
        known: ``bool[n]``, the ratings that are the past and so no visits.
        wanted: How many visits.
    """
    future = ratings.user[~known]
    index = np.linspace(0, len(future), wanted, endpoint=False).astype(np.int64)
    return [ratings.users[user] for user in future[index].tolist()]


@dataclass
class Tally:
    """What the visitors themselves saw.

    Attributes:
        acknowledged: Variant of each impression that the Event Tracker acknowledged, by impression id.
        reactions: How often people reacted how.
        nothing: How often the slot stayed empty, by reason.
        origins: Where the selected contents came from.
    """

    acknowledged: dict[bytes, str] = field(default_factory=dict)
    reactions: Counter[str] = field(default_factory=Counter)
    nothing: Counter[str] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)
    clicked: set[tuple[str, str]] = field(default_factory=set)
    done: int = 0


async def visit_all(mesh: MeshClient, placement: str, people: Sequence[str], truth: Truth, tally: Tally) -> None:
    """Let everybody visit: in order, several people at once, one person's visits one after the other.

    Raises:
        MeshError: A selection or its events were refused, after the client's own retries.
    """

    async def visit(person: str) -> None:
        selection = await mesh.select(placement, person, deadline_s=DEADLINE_S)
        if isinstance(selection, Nothing):
            tally.nothing[selection.reason.name.lower()] += 1
            return
        reaction = truth.reaction(person, selection.content_id)
        await track(mesh, selection, reaction)
        tally.acknowledged[selection.impression_id] = selection.variant
        tally.reactions[reaction] += 1
        tally.origins[selection.origin.name.lower()] += 1
        if reaction == "click":
            tally.clicked.add((person, selection.content_id))

    async def counted(person: str) -> None:
        await visit(person)
        tally.done += 1

    await in_order(people, counted, at_once=VISITS_AT_ONCE)


async def track(mesh: MeshClient, selection: Selected, reaction: React) -> None:
    """Report that a content was shown, and the reaction if there is one, together; raise if one was not accepted."""
    events = [shown(selection)]
    if reaction == "click":
        events.append(click(selection))
    elif reaction == "mute":
        events.append(mute(selection))
    for refused in await mesh.track(events, deadline_s=DEADLINE_S):
        if refused is not None:
            raise refused


async def in_order(people: Iterable[str], act: Callable[[str], Awaitable[None]], *, at_once: int) -> None:
    """Start ``act`` for each person in order, at most ``at_once`` together, never two for the same person. The first
    error ends it."""
    places = asyncio.Semaphore(at_once)
    latest: dict[str, asyncio.Task[None]] = {}

    async def one(person: str, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await before
            await act(person)
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for person in people:
            await places.acquire()
            latest[person] = group.create_task(one(person, latest.get(person)))


def halves(people: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split the visits into two parts; between them the teams' jobs run again."""
    middle = len(people) // 2
    yield people[:middle]
    yield people[middle:]
