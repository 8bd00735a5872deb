"""Who may come in: how many calls are worked on at once, and what those are told who would be one too many.

A call that is refused costs a Python server about as much as an empty one that is answered, half of a selection. So
those who are refused must not come back at once: the delay that they are told grows until they take at most
:data:`REFUSED_SHARE` of what is served. And what they are told is written in advance: to write a status takes as long
as half of the rest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import grpc

from banditmesh.runtime.errors import MeshError, ResourceExhausted, to_status

REFUSED_SHARE: Final = 0.1
TOLD_ONE_OF: Final = round(1 / REFUSED_SHARE)
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0
_PERIOD_S: Final = 0.2
_SHRINK: Final = 0.8
"""The delay grows at once, and becomes shorter by this factor in a period at most: callers that all come back together
would be refused together."""


class RetryDelay:
    """How long refused callers should wait, by how many there are of them. ``now_s``: seconds of steady time."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._delay_s = FIRST_DELAY_S
        self._began_s = now_s()
        self._refused = 0
        self._served = 0

    def served(self, count: int = 1) -> None:
        """So much was answered."""
        self._served += count

    def refused(self, count: int = 1) -> float:
        """So much is refused; returns the seconds after which its caller may try again. With jitter: who was refused
        together does not come back together."""
        return jittered(self.count(count))

    def count(self, refused: int) -> float:
        """So much is refused; returns the seconds after which callers may try again, on average."""
        now_s = self._now_s()
        if now_s - self._began_s >= _PERIOD_S:
            self._adjust(now_s)
        self._refused += refused
        return self._delay_s

    def _adjust(self, now_s: float) -> None:
        share = self._refused / max(1, self._served)
        # After a pause nothing is known: as at the beginning.
        quiet = now_s - self._began_s > LONGEST_DELAY_S
        wanted_s = FIRST_DELAY_S if quiet else self._delay_s * share / REFUSED_SHARE
        self._delay_s = min(max(wanted_s, FIRST_DELAY_S, self._delay_s * _SHRINK), LONGEST_DELAY_S)
        self._began_s, self._refused, self._served = now_s, 0, 0


def jittered(delay_s: float) -> float:
    """A delay around this one."""
    return delay_s * random.uniform(0.5, 1.5)


class Refusal(NamedTuple):
    """What a call is told that is refused, ready to be sent. ``details``: the ``google.rpc.Status``, with RetryInfo."""

    code: grpc.StatusCode
    message: str
    details: bytes

    @classmethod
    def of(cls, error: MeshError) -> Refusal:
        """Write down what an error says."""
        status = to_status(error)
        return cls(error.code, status.message, status.SerializeToString())


Door = Callable[[float | None], Refusal | None]
"""Whether a call comes in, asked before its request is received: given the seconds until its caller gives up (None: it
does not), what it is told that is refused; None: it comes in."""
READY: Final = 16
"""Refusals that are kept, each with another delay."""


class Refusals:
    """Refusals for one reason."""

    def __init__(self, delay: RetryDelay) -> None:
        self._delay = delay
        self._delay_s = 0.0
        self._ready: list[Refusal] = []

    def next(self, why: Callable[[], str]) -> Refusal:
        """For the next call that is refused. ``why``: in words, at this moment; it is not kept, for it knows its owner,
        who would never be freed (see `Generation`)."""
        delay_s = self._delay.count(1)
        if delay_s != self._delay_s:
            self._delay_s = delay_s
            self._ready.clear()
        if len(self._ready) == READY:
            return random.choice(self._ready)
        refusal = Refusal.of(ResourceExhausted(why(), retry_after_s=jittered(delay_s)))
        self._ready.append(refusal)
        return refusal


class Overflow:
    """Whether more calls come than the server can take up, so that the transport cuts some off without a word.

    Whoever is told nothing comes again at once, and so does the next one. So while it lasts one of :data:`TOLD_ONE_OF`
    calls that are taken up is refused with a delay: those who wait make room, until nobody is cut off any more.
    """

    def __init__(
        self, cut_off: Callable[[], int], delay: RetryDelay, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """``cut_off``: how many calls were, ever."""
        self.lasts = False
        """As far as it was last seen."""
        self._cut_off = cut_off
        self._delay = delay
        self._now_s = now_s
        self._before = 0
        self._look_s = now_s() + _PERIOD_S
        self._taken = 0
        self._refusals = Refusals(delay)

    def refuses(self) -> bool:
        """Whether the call that has just been taken up is one to be told to wait."""
        now_s = self._now_s()
        if now_s >= self._look_s:
            self._look_s = now_s + _PERIOD_S
            cut_off = self._cut_off()
            self.lasts = cut_off > self._before
            self._delay.count(cut_off - self._before)
            self._before = cut_off
        self._taken += 1
        return self.lasts and self._taken % TOLD_ONE_OF == 0

    def refusal(self) -> Refusal:
        """What it is told."""
        return self._refusals.next(lambda: "more calls come than the server can take up")


class Admission:
    """Counts the calls in flight."""

    def __init__(self, limit: int, delay: RetryDelay | None = None) -> None:
        """``limit``: calls that are worked on at once."""
        self.limit = limit
        self.in_flight = 0
        self.delay = delay if delay is not None else RetryDelay()
        self._refusals = Refusals(self.delay)

    @property
    def full(self) -> bool:
        """Whether the next call is one too many."""
        return self.in_flight >= self.limit

    def refusal(self) -> Refusal:
        """What a call is told that is one too many."""
        return self._refusals.next(lambda: f"the server works on {self.limit} calls already")
