"""Requests that wait are taken together: one round trip and one run of the pipeline for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from banditmesh.runtime.admission import Refusal, Refusals, RetryDelay
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import DeadlineExceeded, ResourceExhausted
from services.crs_engine.metrics import EngineMetrics
from services.crs_engine.pipeline.batch import Outcome, SelectionRequest

IN_FLIGHT: Final = 2
"""While one batch waits for Redis another is computed; a third would only make batches smaller."""
BESIDE: Final = 64
"""Requests that must wait for a batch to start beside another. A batch has a cost of its own, as much as some 20
selections, which fewer do not repay; they wait for the one that runs, a few milliseconds."""
QUIET_TURNS: Final = 8
"""Turns of the event loop without a new request after which a batch starts; some 10 µs each. grpc.aio 1.85 accepts one
call in a few turns: without this a burst of 64 calls came out as 50 batches, each of which held up the next call."""

FULL_QUIET_TURNS: Final = 2
"""The same, when a whole batch waits already."""
LISTEN_MOST_S: Final = 0.02
"""How long a batch waits at most for calls that keep coming. Whoever stands in the transport's line cannot be told
anything: only what was taken out of it is answered in time, or refused with a delay. So long it takes to take in
:data:`BESIDE` calls, at the 310 to 370 µs of an empty one (`benchmarks/engine.md`): after a batch's worth of them the
engine works rather than listens, and the others come in meanwhile."""
CROWD_TURN_S: Final = 0.001
"""What is left to the transport while calls stand in its line: on a busy machine many turns pass without one because
its threads do not get the core. With batches of 18 instead of 4, 380 instead of 250 of 2 000 callers were answered a
second by an engine that had half a core."""
NEWEST_SHARE: Final = 0.2
"""What the newest batch counts in the average time of a request."""
LEFT_S: Final = 0.01
"""What an answer needs on its way back to the caller at least."""
LEFT_SHARE: Final = 0.7
"""The share of what is left until the caller gives up that must not be waited away here. When everybody wants to come
in, the line in the transport and the caller's own are as long as this one and not seen from here; an answer that comes
too late costs as much as one in time (benchmarks/overload.md)."""

FULL, LATE = "full", "late"
"""Why a call is refused: too many wait, or so many that it would be answered too late."""

Select = Callable[[Sequence[SelectionRequest]], Awaitable[list[Outcome]]]


@dataclass(eq=False, slots=True)
class _Waiting:
    requests: Sequence[SelectionRequest]
    answer: asyncio.Future[list[Outcome]]
    since_s: float
    until_s: float | None
    """When its caller gives up; None: never."""
    ahead: int
    """Requests that waited or were worked on when it came, its own included."""


@dataclass(eq=False)
class Batcher:
    """A queue in front of the engine. Nothing waits while fewer than :data:`IN_FLIGHT` batches run, so a lone request
    is not delayed. It is bounded, in requests and in time: who would wait past its deadline is told at once."""

    select: Select
    max_batch: int
    clock: Clock
    metrics: EngineMetrics
    max_waiting: int = 1024
    """Requests that wait at most; the call that would be one too many is refused, but for one that finds nobody
    waiting."""
    delay: RetryDelay = field(default_factory=RetryDelay)
    arrivals: Callable[[], int] | None = None
    """How many calls the transport has handed over, ever, those included that were refused; None: only what waits
    counts as an arrival."""
    crowded: Callable[[], bool] = lambda: False
    """Whether calls stand in line that the transport has not handed over."""
    _size: int = 0
    """Requests in ``_waiting``."""
    _under_way: int = 0
    """Requests in batches that run."""
    _request_s: float = 0.0
    """By how much a request in front makes one wait, on average: its share of everything that the process does."""
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _refusals: dict[str, Refusals] = field(init=False)
    _listening: bool = False
    _listening_since_s: float = 0.0
    _heard: int = 0
    _quiet: int = 0

    def __post_init__(self) -> None:
        self._refusals = {reason: Refusals(self.delay) for reason in (FULL, LATE)}

    def admit(self, count: int, within_s: float | None = None) -> None:
        """Say at once whether so many requests of a call may come in; see :meth:`submit`.

        Raises:
            ResourceExhausted: Too many wait already, or so many that the call's deadline would pass first.
        """
        reason = self._too_much(count, within_s)
        if reason is not None:
            self.metrics.refused.labels(reason).inc(count)
            left = f", {max(within_s, 0.0):.2g} s are left" if reason == LATE and within_s is not None else ""
            raise ResourceExhausted(self._why(reason) + left, retry_after_s=self.delay.refused(count))

    def refusal(self, within_s: float | None) -> Refusal | None:
        """The same of a call with one request that has not been received yet (see `Door`); None: it may come in."""
        reason = self._too_much(1, within_s)
        if reason is None:
            return None
        self.metrics.refused.labels(reason).inc()
        return self._refusals[reason].next(lambda: self._why(reason))

    def _too_much(self, count: int, within_s: float | None) -> str | None:
        if self._size and self._size + count > self.max_waiting:
            return FULL
        late = within_s is not None and self._size and self._wait_s + max(LEFT_S, LEFT_SHARE * within_s) > within_s
        return LATE if late else None

    @property
    def _wait_s(self) -> float:
        return (self._size + self._under_way) * self._request_s

    def _why(self, reason: str) -> str:
        if reason == FULL:
            return f"{self._size} requests wait already"
        return f"with those in front the call would take {self._wait_s:.2g} s"

    async def submit(self, requests: Sequence[SelectionRequest], within_s: float | None = None) -> list[Outcome]:
        """One outcome for each request. A call that is cancelled (its client has gone) leaves the queue.

        More than ``max_batch`` requests go as several batches, so that nobody waits long behind them.

        Args:
            requests: Of one call.
            within_s: What is left until the caller gives up; None: it waits for ever.

        Raises:
            ResourceExhausted: As :meth:`admit`.
            DeadlineExceeded: The deadline passed before anything was done.
        """
        self.admit(len(requests), within_s)
        loop, now_s = asyncio.get_running_loop(), self.clock.monotonic_s()
        until_s = None if within_s is None else now_s + within_s
        ahead = self._size + self._under_way + len(requests)
        parts = [
            _Waiting(requests[start : start + self.max_batch], loop.create_future(), now_s, until_s, ahead)
            for start in range(0, len(requests), self.max_batch)
        ]
        self._waiting.extend(parts)
        self._size += len(requests)
        self._listen()
        try:
            if len(parts) == 1:
                return await parts[0].answer
            return [outcome for part in parts for outcome in await part.answer]
        finally:
            for part in parts:
                part.answer.cancel()  # of a call that was cancelled; does nothing to an answer that is there

    def _listen(self) -> None:
        """Start what waits once nobody new arrives; called whenever somebody may have arrived or room has been made."""
        if not self._listening and self._waiting and self._worthwhile():
            self._listening = True
            self._heard, self._quiet = self._arrived(), 0
            self._listening_since_s = self.clock.monotonic_s()
            asyncio.get_running_loop().call_soon(self._turn)

    def _arrived(self) -> int:
        return len(self._waiting) if self.arrivals is None else self.arrivals()

    def _turn(self) -> None:
        arrived = self._arrived()
        self._quiet = 0 if arrived > self._heard else self._quiet + 1
        self._heard = arrived
        # A whole batch waits: only those who are just coming in are listened to.
        quiet_turns = QUIET_TURNS if self._size < self.max_batch else FULL_QUIET_TURNS
        over = self.clock.monotonic_s() >= self._listening_since_s + LISTEN_MOST_S
        if not over and self._quiet < quiet_turns:
            asyncio.get_running_loop().call_soon(self._turn)
        elif not over and self._size < BESIDE and self.crowded():
            asyncio.get_running_loop().call_later(CROWD_TURN_S, self._turn)
        else:
            self._listening = False
            self._start()

    def _start(self) -> None:
        while self._waiting and self._worthwhile():
            batch = self._take()
            if batch:
                task = asyncio.create_task(self._run(batch))
                self._running.add(task)
                task.add_done_callback(self._finished)

    def _worthwhile(self) -> bool:
        """Whether to start a batch now rather than when one that runs has ended."""
        if not self._running:
            return True
        return len(self._running) < IN_FLIGHT and self._size >= BESIDE

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._listen()

    def _take(self) -> list[_Waiting]:
        """The longest-waiting calls whose requests fit into one batch, without those that nobody waits for any more."""
        batch: list[_Waiting] = []
        size, now_s = 0, self.clock.monotonic_s()
        while self._waiting and (not batch or size + len(self._waiting[0].requests) <= self.max_batch):
            waiting = self._waiting.popleft()
            self._size -= len(waiting.requests)
            if waiting.until_s is not None and now_s >= waiting.until_s and not waiting.answer.done():
                waiting.answer.set_exception(DeadlineExceeded("the deadline passed while the call waited its turn"))
            if waiting.answer.done():
                self.metrics.dropped.inc(len(waiting.requests))
                continue
            batch.append(waiting)
            size += len(waiting.requests)
        return batch

    async def _run(self, batch: Sequence[_Waiting]) -> None:
        self.metrics.waiting_seconds.observe(self.clock.monotonic_s() - batch[0].since_s)
        requests = [request for waiting in batch for request in waiting.requests]
        self._under_way += len(requests)
        try:
            outcomes = await self.select(requests)
        except Exception as error:  # whatever it was, it belongs to those who wait, and the next batch must go on
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        finally:
            self._under_way -= len(requests)
        self.delay.served(len(requests))
        if batch[-1].ahead >= BESIDE:  # a short line says little: a lone request waits for its own batch alone
            request_s = (self.clock.monotonic_s() - batch[-1].since_s) / batch[-1].ahead
            self._request_s += NEWEST_SHARE * (request_s - self._request_s)
        start = 0
        for waiting in batch:
            end = start + len(waiting.requests)
            if not waiting.answer.done():
                waiting.answer.set_result(outcomes[start:end])
            start = end
