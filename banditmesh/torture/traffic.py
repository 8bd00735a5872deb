"""Visits of apps' users: each asks, shows, and reacts as its number and the seed say, and writes down what it was
promised."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import numpy as np

from banditmesh.client import Event, MeshClient, Nothing, Selected, click, dwell, mute, shown, target
from banditmesh.runtime.errors import DeadlineExceeded, MeshError, ResourceExhausted, Unavailable
from banditmesh.torture.evidence import Key

SELECT_WITHIN_S: Final = 20.0
"""An app would show nothing after a second; here it is asked whether there is an answer, however busy the machine."""
TRACK_WITHIN_S: Final = 90.0
"""Apps' backends keep events until they are acknowledged."""
AT_ONCE: Final = 48
_LIE_S: Final = 3600.0
_NEAR_S: Final = 0.15
"""How near to the window's end some reactions come."""


@dataclass(frozen=True)
class Plan:
    """What a visitor will do.

    Attributes:
        user, placement: Who and where.
        again_s: Seconds after which the impression is sent once more; None: it is not.
        reactions: Each with the seconds after the impression that it is sent at, below 0 before it.
        lies: Whether the app's clock is wrong by an hour, forwards or back.
    """

    user: str
    placement: str
    again_s: float | None
    reactions: tuple[tuple[Key, float, float], ...]
    lies: int


def plan(seed: int, number: int, users: Sequence[str], windows_s: dict[str, float]) -> Plan:
    """The plan of visit ``number``: the same for the same seed."""
    rng = np.random.default_rng([seed, number])
    placement = str(rng.choice(sorted(windows_s)))
    window_s = windows_s[placement]
    kinds: list[tuple[Key, float]] = [
        (("click", ""), 1.0),
        (("mute", ""), 1.0),
        (("target", "purchase"), float(np.float32(rng.uniform(0.5, 3.0)))),
    ]
    if placement == "brief":
        kinds += [(("dwell", str(part)), float(np.float32(rng.uniform(1, 20)))) for part in range(3)]
    n = int(rng.choice([0, 1, 2, 3], p=[0.35, 0.35, 0.2, 0.1]))
    reactions = []
    for at in rng.permutation(len(kinds))[:n]:
        when = rng.choice(["before", "soon", "near", "late"], p=[0.1, 0.55, 0.2, 0.15])
        delay_s = {
            "before": -0.02,
            "soon": rng.uniform(0.0, 0.5 * window_s),
            "near": window_s + rng.uniform(-_NEAR_S, _NEAR_S),
            "late": rng.uniform(1.2, 2.0) * window_s,
        }[str(when)]
        key, amount = kinds[at]
        reactions.append((key, amount, float(delay_s)))
        if rng.random() < 0.15:  # an app that was not sure
            reactions.append((key, amount, float(max(delay_s, 0.0) + rng.uniform(0.0, window_s))))
    again_s = float(rng.uniform(0.0, 2.0 * window_s)) if rng.random() < 0.08 else None
    lies = int(rng.choice([-1, 0, 1], p=[0.05, 0.9, 0.05]))
    return Plan(str(rng.choice(list(users))), placement, again_s, tuple(reactions), lies)


@dataclass
class Journal:
    """What clients were promised, and what not.

    Attributes:
        begun: Impressions of visitors who were given a content.
        acknowledged: Impressions (no key) and reactions that the tracker has taken.
        selected, empty: Answers of the engine.
        failed: Selects without an answer: placement, user and why.
        refused: Events that will never be taken, and why; by reason.
        given_up: Events that nobody acknowledged in time: they may stand in the log or not.
        origins: Where contents came from.
    """

    begun: set[bytes] = field(default_factory=set)
    acknowledged: set[tuple[bytes, Key | None]] = field(default_factory=set)
    selected: int = 0
    empty: int = 0
    failed: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    given_up: int = 0
    origins: Counter[str] = field(default_factory=Counter)


class Traffic:
    """Visitors, so many a second, until stopped."""

    def __init__(
        self, client: MeshClient, users: Sequence[str], windows_s: dict[str, float], seed: int, per_second: float
    ) -> None:
        self.journal = Journal()
        self.per_second = per_second
        self.without: frozenset[str] = frozenset()
        """Kinds of reaction that nobody sends now."""
        self._client = client
        self._users = users
        self._windows_s = windows_s
        self._seed = seed
        self._number = 0
        self._running: asyncio.Task[None] | None = None
        self._visits: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(AT_ONCE)

    def start(self) -> None:
        """Let visitors come."""
        self._running = asyncio.create_task(self._come(), name="traffic")

    async def stop(self) -> None:
        """Let nobody come any more, and those who are here finish: each event is acknowledged or given up."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        await asyncio.gather(*self._visits)

    async def abandon(self) -> None:
        """Drop everything at once."""
        tasks = [*self._visits, *([self._running] if self._running else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _come(self) -> None:
        loop = asyncio.get_running_loop()
        began, n = loop.time(), 0
        while True:
            for _ in range(int((loop.time() - began) * self.per_second) - n):
                n += 1
                if self._room.locked():
                    continue  # so many wait already: this one does not come
                visit = asyncio.create_task(self._visit(self._number))
                self._number += 1
                self._visits.add(visit)
                visit.add_done_callback(self._visits.discard)
            await asyncio.sleep(0.02)

    async def _visit(self, number: int) -> None:
        plan_ = plan(self._seed, number, self._users, self._windows_s)
        async with self._room:
            selection = await self._select(plan_)
        if selection is None:
            return
        identity = selection.impression_id
        self.journal.begun.add(identity)
        early = [each for each in plan_.reactions if each[2] < 0]
        await self._track([(identity, key, _event(selection, key, amount, plan_)) for key, amount, _ in early])
        impression = shown(selection, at=_clock(plan_))
        await self._track([(identity, None, impression)])
        following: list[tuple[float, Key | None, Event]] = [
            (delay_s, key, _event(selection, key, amount, plan_))
            for key, amount, delay_s in plan_.reactions
            if delay_s >= 0
        ]
        if plan_.again_s is not None:
            following.append((plan_.again_s, None, impression))
        began = asyncio.get_running_loop().time()
        for delay_s, sent, event in sorted(following, key=lambda each: each[0]):
            await asyncio.sleep(max(began + delay_s - asyncio.get_running_loop().time(), 0.0))
            await self._track([(identity, sent, event)])

    async def _select(self, plan_: Plan) -> Selected | None:
        try:
            answer = await self._client.select(plan_.placement, plan_.user, deadline_s=SELECT_WITHIN_S)
        except MeshError as error:
            self.journal.failed.append(f"{plan_.placement}/{plan_.user}: {error}")
            return None
        if isinstance(answer, Nothing):
            self.journal.empty += 1
            return None
        self.journal.selected += 1
        self.journal.origins[answer.origin.name] += 1
        return answer

    async def _track(self, wanted: Sequence[tuple[bytes, Key | None, Event]]) -> None:
        events = [each for each in wanted if each[1] is None or each[1][0] not in self.without]
        if not events:
            return
        answers = await self._client.track([event for _, _, event in events], deadline_s=TRACK_WITHIN_S)
        for (identity, key, _), error in zip(events, answers, strict=True):
            if error is None:
                self.journal.acknowledged.add((identity, key))
            elif isinstance(error, Unavailable | ResourceExhausted | DeadlineExceeded):
                self.journal.given_up += 1
            else:
                self.journal.refused[f"{type(error).__name__}: {error.message[:120]}"] += 1


def _clock(plan_: Plan) -> datetime | None:
    if not plan_.lies:
        return None
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + plan_.lies * _LIE_S, UTC)


def _event(selection: Selected, key: Key, amount: float, plan_: Plan) -> Event:
    kind, part = key
    at = _clock(plan_)
    if kind == "click":
        return click(selection, at=at)
    if kind == "mute":
        return mute(selection, at=at)
    if kind == "target":
        return target(selection, part, weight=amount, at=at)
    return dwell(selection, amount, part=int(part), at=at)


def users(count: int) -> list[str]:
    """Names of the users that visit."""
    return [f"u{number}" for number in range(count)]


def mapping(service: str, logic: str, names: Sequence[str]) -> Iterator[str]:
    """Lines of a mapping file: three contents of twenty to each user."""
    yield "user_id,contents\n"
    for number, name in enumerate(names):
        contents = "|".join(f"{service}-{logic}-{(number * 3 + k) % 20}" for k in range(3))
        yield f"{name},{contents}\n"
