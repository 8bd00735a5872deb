"""Requests that come at the same time travel together.

A call goes out at once when none is under way. What arrives meanwhile waits, and goes out together when that call has
ended, when a whole batch is waiting, or when the oldest has waited ``max_wait_s``: so a call that hangs holds nobody
else up for longer.

When more arrives than the server can answer, those who have waited so long that no answer would reach them in time are
told so, and the others go: a line that is served in its order would end up with nobody answered in time.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from banditmesh.runtime.errors import DeadlineExceeded, FailedPrecondition, Internal, MeshError

NEWEST_SHARE = 0.2
"""What the newest call counts in the average time of a call."""

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class CoalescingLimits:
    """How requests are put together."""

    max_batch: int = 64
    """Requests in one call."""
    max_calls: int = 8
    """Calls under way at the same time; what comes beyond them waits, each no longer than its own deadline."""
    max_wait_s: float = 0.02
    """How long a call that is under way holds others up."""


@dataclass(eq=False)
class _Waiting(Generic[Request, Answer]):
    request: Request
    deadline: float
    since: float
    answer: asyncio.Future[Answer]

    def outcome(self, waited_s: float) -> Answer | MeshError:
        """What the caller gets, whose wait is over."""
        if self.answer.cancelled():
            return DeadlineExceeded(f"no answer within {max(0.0, waited_s):.3g} s")
        error = self.answer.exception()
        if error is None:
            return self.answer.result()
        if isinstance(error, MeshError):
            return error
        raise error


class Coalescer(Generic[Request, Answer]):
    """Puts requests together; belongs to one event loop.

    Args:
        send: ``(requests, timeout in seconds) → answers`` in the order of the requests, a MeshError in the place of an
            answer that failed on its own. What it raises befalls all of them.
        limits: How many go together.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Request], float], Awaitable[Sequence[Answer | MeshError]]],
        limits: CoalescingLimits = CoalescingLimits(),
    ) -> None:
        self._send = send
        self._limits = limits
        self._queue: deque[_Waiting[Request, Answer]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._call_s = 0.0

    async def ask(self, request: Request, deadline: float) -> Answer:
        """The answer to one request.

        ``deadline`` is in the event loop's time. Raises the request's own MeshError, or DeadlineExceeded. A caller that
        is cancelled or late takes nobody else with it.
        """
        (answer,) = await self.ask_all([request], deadline)
        if isinstance(answer, MeshError):
            raise answer
        return answer

    async def ask_all(self, requests: Iterable[Request], deadline: float) -> list[Answer | MeshError]:
        """The answers to several requests, in their order; what went wrong with one stands in its place."""
        if self._closed:
            raise FailedPrecondition("the client is closed")
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting = [_Waiting[Request, Answer](request, deadline, now, loop.create_future()) for request in requests]
        if not waiting:
            return []
        self._queue.extend(waiting)
        self._dispatch()
        try:
            await asyncio.wait([each.answer for each in waiting], timeout=max(0.0, deadline - now))
        finally:
            for each in waiting:
                # Who gives up is not sent if that has not happened yet; an answer that is there has been looked at.
                if not each.answer.cancel() and not each.answer.cancelled():
                    each.answer.exception()
        return [each.outcome(deadline - now) for each in waiting]

    async def close(self) -> None:
        """Give up what is under way; everybody who waits gets FailedPrecondition."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        _fail(self._queue, FailedPrecondition("the client is closed"))
        self._queue.clear()

    def _dispatch(self) -> None:
        """Send what may go now, and see to it that the rest is looked at again in time."""
        now = asyncio.get_running_loop().time()
        while self._may_go(now):
            batch = self._take(now)
            if batch:
                call = asyncio.create_task(self._call(batch))
                self._calls.add(call)
                call.add_done_callback(self._ended)
        if self._queue and self._timer is None and len(self._calls) < self._limits.max_calls:
            due_s = self._queue[0].since + self._limits.max_wait_s - now
            self._timer = asyncio.get_running_loop().call_later(due_s, self._waited_long)

    def _take(self, now: float) -> list[_Waiting[Request, Answer]]:
        batch: list[_Waiting[Request, Answer]] = []
        late: list[_Waiting[Request, Answer]] = []
        while self._queue and len(batch) < self._limits.max_batch:
            waiting = self._queue.popleft()
            if not waiting.answer.done():
                (late if waiting.deadline - now < self._call_s else batch).append(waiting)
        if not batch:  # nobody would be served instead
            self._queue.extendleft(reversed(late[self._limits.max_batch :]))
            return late[: self._limits.max_batch]
        _fail(late, DeadlineExceeded(f"not sent: an answer takes about {self._call_s:.2g} s, and less is left"))
        return batch

    def _may_go(self, now: float) -> bool:
        if not self._queue or len(self._calls) >= self._limits.max_calls:
            return False
        return (
            not self._calls
            or len(self._queue) >= self._limits.max_batch
            or now - self._queue[0].since >= self._limits.max_wait_s
        )

    def _waited_long(self) -> None:
        self._timer = None
        self._dispatch()

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not self._closed:
            self._dispatch()

    async def _call(self, batch: Sequence[_Waiting[Request, Answer]]) -> None:
        # The longest deadline counts for the call: each caller looks after its own.
        began = asyncio.get_running_loop().time()
        timeout_s = max(each.deadline for each in batch) - began
        try:
            answers = await self._send([each.request for each in batch], timeout_s)
            if len(answers) != len(batch):
                raise Internal(f"{len(batch)} requests were answered with {len(answers)} answers")
        except MeshError as error:
            _fail(batch, error)
        except asyncio.CancelledError:
            _fail(batch, FailedPrecondition("the client is closed"))
            raise
        except Exception as error:  # a bug; whoever waits must hear of it
            _fail(batch, Internal(f"the call failed: {error!r}"))
        else:
            self._call_s += NEWEST_SHARE * (asyncio.get_running_loop().time() - began - self._call_s)
            for each, answer in zip(batch, answers, strict=True):
                if isinstance(answer, MeshError):
                    _fail([each], answer)
                elif not each.answer.done():
                    each.answer.set_result(answer)


def _fail(batch: Iterable[_Waiting[Request, Answer]], error: MeshError) -> None:
    for each in batch:
        if not each.answer.done():
            each.answer.set_exception(
                copy.copy(error)
            )  # each raises its own: a shared one would collect their tracebacks
